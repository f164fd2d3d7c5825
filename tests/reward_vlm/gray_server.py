"""The real gateway with a model whose judgement can be worked by hand; run as a process.

Progress is the brightness of a frame; the distribution lies on the two scores next to
``1 + 4 * brightness of the last frame``. It is sure of itself but where red is brightest: there it
does not know. Writes its key to the file ``key`` of the folder that is named, prints its address.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from reward_vlm.gateway import server
from reward_vlm.gateway.auth import add_key
from reward_vlm.gateway.settings import Settings
from reward_vlm.model import Clip, Judgement, ModelInfo, Sampling

parser = argparse.ArgumentParser()
parser.add_argument("folder", type=Path)
parser.add_argument("--port", type=int, default=0)
options = parser.parse_args()


class Gray:
    """A :class:`reward_vlm.model.RewardModel`."""

    info = ModelInfo(
        "gray", "small", "1", Sampling(count=8, most=8), {}, "grey squares",
        heads=("score", "progress", "success"),
    )  # fmt: skip

    def judge(self, clips: Sequence[Clip]) -> list[Judgement]:
        return [self._one(clip) for clip in clips]

    def _one(self, clip: Clip) -> Judgement:
        frames = np.concatenate(list(clip.views.values()), axis=2)
        progress = frames.mean((1, 2, 3)) / 255
        at = 4 * progress[-1]
        low = min(int(at), 3)
        probs = np.zeros(5)
        probs[low], probs[low + 1] = 1 - (at - low), at - low
        red = frames[-1].mean((0, 1))
        doubt = 1.0 if red[0] > red[1] + 10 else 0.0
        return Judgement(probs, progress, float(progress[-1] > 0.8), ood=doubt)

    def ready(self) -> None:
        pass

    def close(self) -> None:
        pass


if __name__ == "__main__":
    keys = options.folder / "keys.json"
    (options.folder / "key").write_text(add_key(keys, "test"))
    server.serve([Gray()], Settings(keys=keys, port=options.port))
