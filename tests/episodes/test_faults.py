"""Faults at smoke size; ``incognita.bench.faults`` runs the full sizes with the same code."""

import signal

import pytest

from episodes import EpisodeReader, RefusedEpisodeError
from incognita.bench import faults
from incognita.bench.hostile_episodes import hostile_cases


def test_killed_writers_lose_nothing_acknowledged(tmp_path, lines, check):
    totals = faults.kills(8, 1, tmp_path, emit=lines.append)
    check(totals, lines, 8)
    assert totals["episodes"] > 0


def test_interrupted_writers_lose_nothing_and_exit(tmp_path, lines, check):
    totals = faults.kills(5, 2, tmp_path, sig=signal.SIGINT, emit=lines.append)
    check(totals, lines, 5)


def test_no_flipped_bit_missing_or_swapped_file_goes_unnoticed(tmp_path, lines, check):
    totals = faults.flips(60, 3, tmp_path, emit=lines.append)
    check(totals, lines, 100)
    assert totals["damage_at_end"] == 0


@pytest.mark.parametrize("tmpfs", [True, False])
def test_a_full_disk_is_a_typed_error_and_hurts_nothing(tmp_path, lines, monkeypatch, tmpfs, check):
    if not tmpfs:
        monkeypatch.setattr(faults, "_mount_tmpfs", lambda folder: False)
    totals = faults.full_disk(10, 4, tmp_path, emit=lines.append)
    check(totals, lines, 10)
    if not tmpfs:
        assert totals["method"] == "RLIMIT_FSIZE"


def test_hostile_episodes_are_refused_unrun_and_unallocated(tmp_path, lines, check):
    totals = faults.hostile(None, 5, tmp_path, emit=lines.append)
    check(totals, lines, 30)


def test_hostile_episodes_are_refused_for_what_they_are(tmp_path):
    """A harness whose files are all refused for one slip of its own would prove nothing."""
    import shutil

    says = {
        "pickle codec": "codecs must be",
        "gzip bomb": "codecs must be",
        "zstd bomb": "says 268435456",
        "zstd frame of unknown size": "says None",
        "shape of 2^39 bytes": "arrays must fit",
        "twelve arrays that add up": "arrays must fit",
        "chunk is a link to a file outside": "not a plain file",
        "manifest lists ../secret": "manifest lists",
        "file that no manifest lists": "notes.pkl",
        "16k x 16k PNG": "header says 16384 x 16384",
        "30k x 30k JPEG": "header says 30000 x 30000",
    }
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_bytes(b"secret")
    store = tmp_path / "store"
    good = faults.Store(store).write(0, 0)
    spoilers = hostile_cases(tmp_path / "outside/canary")
    for n, (name, text) in enumerate(says.items()):
        id = f"20260101T000000Z-00000000-{n:06d}"
        shutil.copytree(store / good, store / id)
        if not name.startswith("manifest"):
            spoilers[name](store / id)
        faults.remake_manifest(store / id)
        if name.startswith("manifest"):
            spoilers[name](store / id)
        with pytest.raises(RefusedEpisodeError) as caught:
            EpisodeReader(store).open(id).frames("front")
        assert text in str(caught.value), name


def test_writers_and_readers_do_not_meet(tmp_path, lines, check):
    totals = faults.crowd(2.0, 6, tmp_path, emit=lines.append)
    check(totals, lines, 4)
    assert totals["episodes"] > 2


def test_the_harness_catches_what_others_lose(tmp_path):
    """Negative controls: the same faults must hurt torch.save in place, ZipStore, default zstd."""
    results = faults.controls(3, 7, tmp_path, emit=lambda line: None)
    lost = {result["check"]: result["lost"] for result in results}
    assert lost.keys() == {"E1-torch-save", "E1-zip-store", "E2-default-zstd"}
    assert min(lost.values()) > 0


def test_unknown_checks_are_named():
    with pytest.raises(ValueError, match=r"got \['E9'\]"):
        faults.run(["E9"])
