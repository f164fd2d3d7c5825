import asyncio
import io
import os
import signal
import struct
import time

import cv2
import numpy as np
import pytest

from incognita.bench.hostile_media import images, npy, zipped
from incognita.bench.reward_stand import clip_frames, mp4, npz
from reward_vlm.decode import Limits, MediaError, decode, image_size
from reward_vlm.gateway.decoder import DecoderPool
from reward_vlm.model import Sampling

EIGHT = Sampling(count=8)


def with_pool(work, limits=None, size=1):
    """Run ``work(pool)`` in an event loop."""

    async def main():
        pool = DecoderPool(size, limits or Limits())
        await pool.start()
        try:
            return await work(pool)
        finally:
            pool.close()

    return asyncio.run(main())


def refused(kind, data, sampling=EIGHT, fps=10.0, limits=None):
    with pytest.raises(MediaError) as caught:
        decode(kind, data, sampling, fps, limits or Limits())
    assert 400 <= caught.value.status < 500
    return caught.value.code


def test_npz_frames_come_out_as_they_went_in():
    frames = np.random.default_rng(0).integers(0, 255, (20, 24, 32, 3), dtype=np.uint8)
    found = decode("npz", npz(frames), EIGHT, 10.0, Limits())
    assert found.indices.tolist() == [0, 3, 5, 8, 11, 14, 16, 19] and found.total == 20
    np.testing.assert_array_equal(found.frames, frames[found.indices])
    packed = io.BytesIO()
    np.savez_compressed(packed, frames=frames)
    again = decode("npz", packed.getvalue(), EIGHT, 10.0, Limits())
    np.testing.assert_array_equal(again.frames, found.frames)


def test_mp4_frames_are_those_of_the_wanted_numbers():
    frames = clip_frames(0, 20, 64)
    found = decode("mp4", mp4(frames, fps=12), EIGHT, None, Limits())
    assert found.fps == 12 and found.total == 20 and found.frames.shape == (8, 64, 64, 3)
    off = np.abs(found.frames.astype(int) - frames[found.indices])
    assert off.max() <= 4  # even light: what H.264 loses of colour
    assert decode("mp4", mp4(frames), EIGHT, 5.0, Limits()).fps == 5


def test_large_frames_are_scaled_by_area():
    frames = np.zeros((2, 64, 128, 3), np.uint8)
    frames[:, :, ::2] = 200
    found = decode("npz", npz(frames), Sampling(count=2, side=64), 1.0, Limits())
    assert found.frames.shape == (2, 32, 64, 3) and (found.frames == 100).all()


@pytest.mark.parametrize("ending", [".png", ".jpg"])
def test_an_image_is_one_rgb_frame(ending):
    picture = np.zeros((16, 24, 3), np.uint8)
    picture[..., 2] = 250  # red as OpenCV has it
    data = cv2.imencode(ending, picture)[1].tobytes()
    assert image_size(data) == (24, 16)
    found = decode("image", data, EIGHT, None, Limits())
    assert found.frames.shape == (1, 16, 24, 3)
    assert abs(int(found.frames[0, 0, 0, 0]) - 250) < 5 and found.frames[..., 1:].max() < 8


@pytest.mark.parametrize("name", images())
def test_what_is_no_image_is_refused(name):
    assert refused("image", images()[name])


def test_caps_hold_whatever_the_header_says():
    video, frames = mp4(clip_frames(0, 20, 64)), npz(clip_frames(0, 20, 64))
    for kind, data in (("mp4", video), ("npz", frames)):
        assert refused(kind, data, limits=Limits(frames=19)) == "too_many_frames"
        assert refused(kind, data, limits=Limits(pixels=4095)) == "frame_too_large"
        assert refused(kind, data, limits=Limits(video_pixels=81_919)) == "video_too_large"
        assert refused(kind, data, limits=Limits(kept_bytes=98_303)) == "too_many_pixels"
        assert refused(kind, data, limits=Limits(file_bytes=100)) == "file_too_large"


def test_a_cut_or_lying_file_is_no_shorter_episode():
    good = mp4(clip_frames(0, 20, 64))
    count = good.index(b"stsz") + 12
    assert refused("mp4", good[:count] + struct.pack(">I", 5) + good[count + 4 :])
    assert refused("mp4", good[:-300]) == "damaged"
    assert refused("npz", zipped(("frames.npy", npy("(9, 2, 2, 3)", bytes(96))))) == "frame_count"
    assert refused("npz", npz(clip_frames(0, 2, 4)), fps=None) == "fps_missing"


def test_the_child_decodes_the_same():
    frames, video = clip_frames(1, 20, 64), mp4(clip_frames(1, 20, 64))

    async def work(pool):
        return [
            await pool.decode("mp4", video, EIGHT, None),
            await pool.decode("npz", npz(frames), Sampling(count=3, side=32), 10.0),
        ]

    first, second = with_pool(work)
    here = decode("mp4", video, EIGHT, None, Limits())
    np.testing.assert_array_equal(first.frames, here.frames)
    assert first.fps == 10 and second.frames.shape == (3, 32, 32, 3)


def test_a_dead_or_frozen_child_is_replaced_and_its_file_refused():
    good = npz(clip_frames(0, 4, 8))

    async def work(pool):
        codes = []
        for number in (signal.SIGKILL, signal.SIGSTOP):
            while pool._idle.empty():
                await asyncio.sleep(0.02)
            os.kill(pool._idle._queue[0].process.pid, number)
            with pytest.raises(MediaError) as caught:
                await pool.decode("npz", good, EIGHT, 10.0)
            codes.append(caught.value.code)
        found = await pool.decode("npz", good, EIGHT, 10.0)
        return codes, found.total, pool.replaced

    codes, total, replaced = with_pool(work, Limits(wall_s=0.5))
    assert codes == ["decode_failed", "decode_timeout"] and (total, replaced) == (4, 2)


def test_the_child_has_a_limit_on_memory():
    frames = np.zeros((40, 512, 512, 3), np.uint8)  # 31 MB

    async def work(pool):
        with pytest.raises(MediaError) as caught:
            await pool.decode("npz", npz(frames), Sampling(count=40), 10.0)
        return caught.value.code, (await pool.decode("npz", npz(frames[:2]), EIGHT, 1.0)).total

    assert with_pool(work, Limits(memory_bytes=24 << 20)) == ("memory", 2)


def test_the_child_gets_no_secrets_and_ends_with_its_pool(monkeypatch):
    monkeypatch.setenv("REWARD_SECRET", "abc")

    async def work(pool):
        pid = pool._idle._queue[0].process.pid
        return pid, open(f"/proc/{pid}/environ", "rb").read()

    pid, environment = with_pool(work)
    assert b"PATH=" in environment and b"REWARD_SECRET" not in environment
    until = time.monotonic() + 2
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < until:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")
