r"""Stage-aligned reward: the tracker that triplet scores move, and its pay (arXiv 2511.16166).

The paper opens the gate to the next stage where the *mean* of rewards, none above 0.05, exceeds
0.15: never. ``mode="paper"`` does exactly that, with the score as printed, and stays as a
regression test; ``mode="working"`` is what trains.

Everything is batched over N environments and runs on numpy alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .stages import StageDictionary
from .triplets import scores

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_CARRIES = ("settle", "lift", "over", "lower")
"""Primitives that are worked on with the target in the grasp."""


@dataclass(frozen=True)
class StageRewardConfig:
    """How scores become stages and rewards. The paper's numbers: :meth:`paper`."""

    mode: Literal["working", "paper"] = "working"
    tau: float = 0.05
    """Temperature of stages that have none of their own. The paper multiplies by it."""
    alpha: float = 0.75
    """Weight of the newest score in the running one (Eq. 3). The paper's 0.05 needs 24 frames to
    come from 0 to 0.7; a stage lasts five to ten at 20 Hz, and each frame of delay counts."""
    window: int = 8
    """Steps that the gate looks back over, m."""
    gate: float = 0.15
    """By how much the running score must have risen over the window (working: the sum of stage
    rewards; paper: their mean)."""
    theta: float = 0.7
    """Running score from which on a stage without a threshold of its own counts as done."""
    hold: int = 4
    """Steps above theta after which a stage is done without a rise: its result was there before."""
    low: float = 0.3
    """Below this, a score says that nothing is to be seen of a stage."""
    patience: int = 10
    """Steps of low scores, of the stage and of a result that it builds on, until it is left."""
    gamma: float = 0.995
    """Discount of the learner, for the shaping."""

    def __post_init__(self) -> None:
        if self.mode not in ("working", "paper"):
            raise ValueError(f'mode must be "working" or "paper", got {self.mode!r}')
        if not (self.tau > 0 and 0 < self.alpha <= 1 and 0 < self.gamma <= 1):
            raise ValueError(f"tau > 0, alpha and gamma in (0, 1] wanted, got {self}")
        if not 0 <= self.low < self.theta <= 1:
            raise ValueError(f"0 <= low < theta <= 1 wanted, got {self.low} and {self.theta}")
        if min(self.window, self.hold, self.patience) < 1:
            raise ValueError(f"window, hold and patience must be >= 1, got {self}")

    @classmethod
    def paper(cls) -> StageRewardConfig:
        """Literally what is printed."""
        return cls(mode="paper", alpha=0.05, window=8, gate=0.15)


def builds_on(dictionary: StageDictionary) -> tuple[Bools, NDArray[np.int64]]:
    """Which results must last while a stage is worked on, and where to begin again without them.

    Where stages have steps: the grasp, from "close" to "open"; what has been put down, from "open"
    on. "above" and "over" are left on purpose. Without steps: the result of the stage before.

    Returns:
        needs (K + 1, K) bool, for every stage and for the end; begin (K,), the first stage of the
        pick that a result belongs to (without steps: itself).
    """
    steps = [stage.step for stage in dictionary.stages]
    count = len(steps)
    needs, begin = np.zeros((count + 1, count), np.bool_), np.arange(count)
    if any(step is None for step in steps):
        needs[np.arange(1, count + 1), np.arange(count)] = True
        return needs, begin
    last: dict[str, int] = {}
    for k, step in enumerate(steps):
        assert step is not None
        if k and steps[k - 1].target == step.target:  # type: ignore[union-attr]
            begin[k] = begin[k - 1]
        else:
            last = {}
        if step.primitive == "close" and "reach" in last:
            needs[k, last["reach"]] = True
        elif step.primitive in _CARRIES and "close" in last:
            needs[k, last["close"]] = True
        elif step.primitive == "open":
            needs[k + 1 :, k] = True
        last[step.primitive] = k
    return needs, begin


@dataclass(frozen=True)
class StageStep:
    """What one step gave, a row per environment."""

    reward: Floats
    """(N,) unscaled. Working: gamma Phi' - Phi; paper: the rise of the running score (Eq. 4)."""
    active: NDArray[np.int64]
    """(N,) stage that was scored, 0..K-1; the last one where all are done."""
    raw: Floats
    """(N,) its score in this frame, u."""
    score: Floats
    """(N,) its running score."""
    stage: NDArray[np.int64]
    """(N,) stage that is believed now, 0..K."""
    advanced: Bools
    """(N,) a stage was done in this step."""
    regressed: Bools
    """(N,) a stage was taken back."""
    vetoed: Bools
    """(N,) the scores say done and the pose evidence does not."""


class StageTracker:
    r"""Which stage is being worked on, as scores tell, and what is paid for it.

    Working mode: the running score starts at the first score of a stage. A stage is done when the
    running score is at least theta and has either risen by ``gate`` within the window or stayed
    there for ``hold`` steps, not before its ``min_frames``, and only if pose evidence, where it
    is given, agrees. It is left again when neither its own result nor one that it builds on (see
    :func:`builds_on`) is to be seen for ``patience`` steps. The reward is potential-based,

    .. math:: r = \gamma \Phi' - \Phi, \qquad \Phi = (\kappa + \bar u_\kappa) / K

    with Phi = 1 when all is done and 0 beyond a terminal state (not beyond a time limit, where the
    learner bootstraps): so the discounted sum over an episode depends on its ends only, and going
    back and forth between stages earns nothing (Ng, Harada and Russell 1999).

    Rows are independent. A row starts with :meth:`reset`, and after its end must be reset again.
    """

    def __init__(
        self, dictionary: StageDictionary, num_envs: int, config: StageRewardConfig | None = None
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be >= 1, got {num_envs}")
        c = self.config = config or StageRewardConfig()
        stages = dictionary.stages
        self.num_envs, self.num_stages = num_envs, len(stages)
        literal = c.mode == "paper"
        self.tau = np.array([c.tau if s.tau is None or literal else s.tau for s in stages])
        self.theta = np.array([c.theta if s.theta is None else s.theta for s in stages])
        self.least = np.array([s.min_frames or 1 for s in stages])
        self.stage = np.zeros(num_envs, np.int64)
        self.smooth = np.zeros(num_envs)
        self.potential = np.zeros(num_envs)
        self.rises = np.zeros((num_envs, c.window))
        """The last stage rewards of the present stage; the oldest comes first."""
        self.age, self.high = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        """Steps in the stage; of them in a row above theta."""
        self.needs, self.begin = builds_on(dictionary)
        self.lost = np.zeros((num_envs, len(stages)), np.int64)
        """Steps in a row in which a result that the stage builds on was not to be seen."""
        self.running = np.zeros(num_envs, np.bool_)

    def reset(self, gaps: ArrayLike, env_ids: ArrayLike | None = None) -> None:
        """Begin episodes.

        Args:
            gaps: (n, K) of the first frame of these rows, see :meth:`.triplets.Triplets.gaps`.
            env_ids: (n,) rows; None: all.
        """
        rows = np.arange(self.num_envs) if env_ids is None else np.asarray(env_ids, np.int64)
        if rows.ndim != 1 or (rows.size and not 0 <= rows.min() <= rows.max() < self.num_envs):
            raise ValueError(f"env_ids must be (n,) in [0, {self.num_envs}), got {rows.tolist()}")
        u = scores(self._checked(gaps, len(rows)), self.tau, self.config.mode == "paper")
        self.stage[rows] = 0
        self._enter(rows, u)
        if self.config.mode == "paper":
            self.smooth[rows] = 0.0  # the paper does not say; 0 is kindest to its gate
        self.potential[rows] = self._phi()[rows]
        self.running[rows] = True

    def step(
        self,
        gaps: ArrayLike,
        terminated: ArrayLike,
        truncated: ArrayLike,
        pose_done: ArrayLike | None = None,
    ) -> StageStep:
        """One step of all environments.

        Args:
            gaps: (N, K) of the frame that the step led to, before any reset.
            terminated: (N,) bool, the episode ended in a terminal state.
            truncated: (N,) bool, it was cut by a time limit.
            pose_done: (N, K) bool, whether poses say that the result of a stage holds; False
                vetoes it. None: no veto.

        Raises:
            ValueError: a wrong shape, a number that is not finite, or a row that has ended and
                was not reset.
        """
        n, k, c = self.num_envs, self.num_stages, self.config
        if not self.running.all():
            waiting = np.flatnonzero(~self.running).tolist()
            raise ValueError(f"gaps: rows {waiting} have ended: reset them before the next step")
        ended = [np.asarray(flag, np.bool_) for flag in (terminated, truncated)]
        if any(flag.shape != (n,) for flag in ended):
            raise ValueError(f"terminated, truncated must be ({n},), got {ended[0].shape}")
        if pose_done is not None and np.shape(pose_done) != (n, k):
            raise ValueError(f"pose_done must be ({n}, {k}), got {np.shape(pose_done)}")
        u = scores(self._checked(gaps, n), self.tau, c.mode == "paper")
        all_rows = np.arange(n)
        active = np.minimum(self.stage, k - 1)
        raw = u[all_rows, active]
        before = self.smooth
        self.smooth = (1 - c.alpha) * before + c.alpha * raw
        rise = self.smooth - before
        self.rises = np.concatenate([self.rises[:, 1:], rise[:, None]], axis=1)
        self.age += 1
        score = self.smooth
        wants, back = self._decide(u, active)
        veto = np.zeros(n, np.bool_)
        if pose_done is not None:
            veto = wants & ~np.asarray(pose_done, np.bool_)[all_rows, active]
        advanced = wants & ~veto
        regressed = (back < self.stage) & ~advanced
        self.stage = np.where(regressed, back, self.stage + advanced)
        changed = np.flatnonzero(advanced | regressed)
        self._enter(changed, u[changed])
        reward = rise if c.mode == "paper" else self._shaped(ended[0])
        self.running &= ~(ended[0] | ended[1])
        return StageStep(reward, active, raw, score, self.stage.copy(), advanced, regressed, veto)

    def _decide(self, u: Floats, active: NDArray[np.int64]) -> tuple[Bools, NDArray[np.int64]]:
        """(N,) whether scores say that the stage is done, and the stage to go back to, or it."""
        c, open_ = self.config, self.stage < self.num_stages
        if c.mode == "paper":  # the mean of the window, and never back
            return open_ & (self.rises.mean(axis=1) > c.gate), self.stage
        theta = self.theta[active]
        self.high = np.where(self.smooth >= theta, self.high + 1, 0)
        shown = (self.rises.sum(axis=1) >= c.gate) | (self.high >= c.hold)
        wants = open_ & (self.high > 0) & shown & (self.age >= self.least[active])
        nothing = ~open_ | (self.smooth < c.low)
        gone = self.needs[self.stage] & (u < c.low) & nothing[:, None]
        self.lost = np.where(gone, self.lost + 1, 0)
        back = np.where(self.lost >= c.patience, self.begin, self.stage[:, None]).min(axis=1)
        return wants, back

    def _enter(self, rows: NDArray[np.int64], u: Floats) -> None:
        """Begin the present stage of these rows, whose scores are u (n, K)."""
        active = np.minimum(self.stage[rows], self.num_stages - 1)
        self.smooth = self.smooth.copy()  # a step that was handed out keeps its own
        self.smooth[rows] = u[np.arange(len(rows)), active]
        self.rises[rows] = 0.0
        self.age[rows] = self.lost[rows] = 0
        self.high[rows] = self.smooth[rows] >= self.theta[active]

    def _phi(self) -> Floats:
        """(N,) potential, 0..1."""
        part = np.where(self.stage < self.num_stages, self.smooth, 0.0)
        out: Floats = (self.stage + part) / self.num_stages
        return out

    def _shaped(self, terminated: Bools) -> Floats:
        after = self._phi()
        reward = self.config.gamma * np.where(terminated, 0.0, after) - self.potential
        self.potential = after
        return reward

    def _checked(self, gaps: ArrayLike, n: int) -> Floats:
        out = np.asarray(gaps, np.float64)
        if out.shape != (n, self.num_stages):
            raise ValueError(f"gaps must be ({n}, {self.num_stages}), got {out.shape}")
        if not np.isfinite(out).all():
            raise ValueError("gaps must be finite, got NaN or infinity")
        return out

    _STATE = ("stage", "smooth", "potential", "rises", "age", "high", "lost", "running")

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on: arrays by name."""
        return {name: getattr(self, name).copy() for name in self._STATE}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved state, bit for bit.

        Raises:
            ValueError: it is of another number of environments or of another window.
        """
        new = {name: np.array(state[name]) for name in self._STATE}
        for name, value in new.items():
            if value.shape != getattr(self, name).shape:
                want = getattr(self, name).shape
                raise ValueError(f"state[{name!r}] must be {want}, got {value.shape}")
        for name, value in new.items():
            setattr(self, name, value)
