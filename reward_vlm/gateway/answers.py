"""Judgement to answer, and the key that a judgement is cached by."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import numpy as np

from ..model import BadOutput, Clip, Judgement, ModelInfo
from ..wire import RewardAnswer, Timing, Want


def _digest(parts: Iterable[bytes | memoryview]) -> bytes:
    """SHA-256 of parts, each with its length: no two lists of parts give the same bytes."""
    hash = hashlib.sha256()
    for part in parts:
        size = part.nbytes if isinstance(part, memoryview) else len(part)
        hash.update(struct.pack(">Q", size))
        hash.update(part)
    return hash.digest()


def clip_key(clip: Clip, info: ModelInfo) -> bytes:
    """Cache key: all that a judgement depends on, shapes and model revision among it."""
    parts: list[bytes | memoryview] = [
        info.name.encode(),
        info.revision.encode(),
        info.preprocess_sha.encode(),
        clip.task.encode(),
        struct.pack(">d", clip.fps),
        np.ascontiguousarray(clip.frame_indices, ">i8").tobytes(),
    ]
    for name in sorted(clip.views):
        frames = np.ascontiguousarray(clip.views[name])
        parts += [name.encode(), struct.pack(">4Q", *frames.shape)]
        parts.append(memoryview(frames).cast("B"))  # type: ignore[arg-type]
    return _digest(parts)


def answer_of(
    judgement: Judgement,
    clip: Clip,
    info: ModelInfo,
    want: Iterable[Want],
    *,
    id: str,
    cached: bool,
    timing: Timing,
) -> RewardAnswer:
    """What goes over the wire; of the heads only those in ``want``.

    Raises:
        BadOutput: the judgement does not fit the clip.
    """
    wanted = set(want)
    progress = judgement.progress
    if progress is not None and progress.shape != (clip.length,):
        raise BadOutput(f"progress must be ({clip.length},), got {progress.shape}")
    return RewardAnswer(
        id=id,
        score=judgement.score,
        expected=min(max(judgement.expected, 1.0), 5.0),
        reward=min(max(judgement.reward, 0.0), 1.0),
        probs=[min(float(p), 1.0) for p in judgement.probs],
        entropy=min(judgement.entropy, 1.0),
        lost_mass=judgement.lost_mass,
        abstain=info.doubt.reason(judgement),  # type: ignore[arg-type]
        ood=judgement.ood,
        p_success=min(judgement.success, 1.0) if "success" in wanted else None,
        progress=progress.tolist() if "progress" in wanted and progress is not None else None,
        probes=dict(judgement.probes) if "probes" in wanted and judgement.probes else None,
        frame_indices=clip.frame_indices.tolist(),
        model=info.name,
        revision=info.revision,
        prompt_version=info.prompt_version,
        preprocess_sha=info.preprocess_sha,
        cached=cached,
        timing_ms=timing,
    )
