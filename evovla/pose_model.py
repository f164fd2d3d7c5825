"""How an object moves as the gripper sees it: the change of a pose, and models that learn it."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from curiosity.features import Features
from curiosity.normalization import RunningMeanStd

from .pose import POSE

FLOOR = (0.01, 0.01, 0.01, 0.001, 0.001, 0.001)
"""Standard deviations of the motion in a step are not taken to be smaller, rad and m: below is
what a pose estimate is unsure of."""
_Z = len(POSE)


class PoseModel(nn.Module):
    """A forward and an inverse model, and the running statistics that they are judged in.

    Args:
        context_dim: columns that follow the pose in what is seen.
        action_dim: length of an action.
        hidden: width of the two hidden layers of both.
        generator: of the weights.
    """

    floor: Tensor

    def __init__(
        self, context_dim: int, action_dim: int, hidden: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        seen = _Z + context_dim
        self.features = Features(seen, None, None, 1, True, generator)
        self.motion, self.acted = RunningMeanStd((_Z,)), RunningMeanStd((action_dim,))
        self.predict = _net((seen + action_dim, hidden, hidden, _Z), generator)
        self.guess = _net((seen + _Z, hidden, hidden, action_dim), generator)
        self.register_buffer("floor", torch.tensor(FLOOR), persistent=False)

    @property
    def fitted(self) -> bool:
        """Whether any motion was seen, so that errors have their unit."""
        return self.motion.fitted

    @torch.no_grad()
    def fit(self, seen: Tensor, action: Tensor, motion: Tensor) -> None:
        """Take (B, ...) samples into the statistics."""
        self.features.fit(seen)
        self.motion.update(motion)
        self.acted.update(action)

    def expect(self, seen: Tensor, action: Tensor) -> Tensor:
        """(B, 6) motion that the forward model expects, rad and m; none before the first fit.

        Args:
            seen: (B, 6 + context_dim) pose and context.
            action: (B, action_dim).
        """
        if not self.fitted:
            return torch.zeros_like(seen[:, :_Z])
        told = self.predict(torch.cat((self.features(seen), self._white(action)), dim=-1))
        return told * self._motion_std()  # type: ignore[no-any-return]

    def surprise(self, seen: Tensor, action: Tensor, motion: Tensor) -> Tensor:
        """(B,) half the squared error of a motion (B, 6), in its standard deviations."""
        error = self._in_std(self.expect(seen, action) - motion)
        return 0.5 * error.square().sum(dim=-1)

    def action_error(self, seen: Tensor, action: Tensor, motion: Tensor) -> Tensor:
        """(B,) mean squared error of the action guessed from the motion, in its variances."""
        told = self.guess(torch.cat((self.features(seen), self._in_std(motion)), dim=-1))
        return (told - self._white(action)).square().mean(dim=-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def left(self, seen: Tensor, action: Tensor, motion: Tensor) -> dict[str, float]:
        """What the forward model leaves unexplained of (B, ...) samples.

        Returns:
            "unexplained": its squared error over that of "nothing moves", in standard deviations
            of the motion; "unexplained_pose": over the variance of these poses, as if the next pose
            were foretold (the paper's way), where "nothing moves" is nearly right already.
        """
        error = (self.expect(seen, action) - motion).square()
        unit = self._motion_std().square()
        still = (motion.square() / unit).sum().clamp(min=1e-12)
        spread = torch.maximum(seen[:, :_Z].var(dim=0, correction=0), self.floor.square())
        return {"unexplained": float((error / unit).sum() / still),
                "unexplained_pose": float((error / spread).mean())}  # fmt: skip

    def _white(self, action: Tensor) -> Tensor:
        return ((action - self.acted.mean) / self.acted.std).float()

    def _motion_std(self) -> Tensor:
        return torch.maximum(self.motion.std.float(), self.floor)

    def _in_std(self, motion: Tensor) -> Tensor:
        return motion / self._motion_std()


def pose_change(z: Tensor, next_z: Tensor) -> Tensor:
    """How the object moved in the frame of the gripper, continuous at any angle.

    Args:
        z, next_z: (..., 6) poses, see :data:`evovla.pose.POSE`.

    Returns:
        (..., 6): rotation vector that takes the first rotation to the second, rad, in the frame of
        the object; difference of the translations, m.
    """
    now, then = _quat_wxyz(z[..., :3]), _quat_wxyz(next_z[..., :3])
    w, v = now[..., :1], -now[..., 1:]
    w2, v2 = then[..., :1], then[..., 1:]
    real = w * w2 - (v * v2).sum(dim=-1, keepdim=True)
    vector = w * v2 + w2 * v + torch.linalg.cross(v, v2)
    vector = torch.where(real < 0, -vector, vector)
    sine = vector.norm(dim=-1, keepdim=True)
    factor = 2 * torch.atan2(sine, real.abs()) / sine.clamp(min=1e-12)
    turn = vector * torch.where(sine > 1e-12, factor, torch.full_like(factor, 2.0))
    return torch.cat((turn, next_z[..., 3:] - z[..., 3:]), dim=-1)


def _quat_wxyz(turn: Tensor) -> Tensor:
    """(..., 4) unit quaternions of (..., 3) rotation vectors."""
    half = 0.5 * turn.norm(dim=-1, keepdim=True)
    return torch.cat((half.cos(), 0.5 * torch.sinc(half / math.pi) * turn), dim=-1)


def _net(sizes: tuple[int, ...], generator: torch.Generator) -> nn.Sequential:
    """Linear layers, LayerNorm and ReLU between; the last begins small: "nothing moves"."""
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for i, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        linear: nn.Linear = nn.utils.skip_init(nn.Linear, fan_in, fan_out)  # type: ignore
        gain = 0.01 if i == last else math.sqrt(2.0)
        nn.init.orthogonal_(linear.weight, gain, generator=generator)
        nn.init.zeros_(linear.bias)
        layers.append(linear)
        if i < last:
            layers += [nn.LayerNorm(fan_out), nn.ReLU()]
    return nn.Sequential(*layers)
