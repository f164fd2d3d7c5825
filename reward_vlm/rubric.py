"""The public RoboReward contract (arXiv 2601.00675): prompt, parser, penalty, macro-MAE.

The prompt is that of the model cards of RoboReward-4B and -8B (CC-BY-4.0), to the byte. Parser and
penalty are those of the authors' benchmark code: what cannot be parsed counts as an error of 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

PROMPT = """\
Given the task, assign a discrete progress score reward (1,2,3,4,5) for the robot in the video in \
the format: ANSWER: <score>
Rubric for end-of-episode progress (judge only the final state without time limits):
1 - No Success: Final state shows no goal-relevant change for the command.
2 - Minimal Progress: Final state shows a small but insufficient change toward the goal.
3 - Partial Completion: The final state shows good progress toward the goal but violates more than \
one requirement or a major requirement.
4 - Near Completion: Final state is correct in region and intent but misses a single minor \
requirement.
5 - Perfect Completion: Final state satisfies all requirements.

Task: {task}"""
PROMPT_VERSION = "roboreward-1"
"""Stamped on every answer; a changed prompt is another version."""
ANSWER = "ANSWER: "
"""Begun for the assistant: the next token is the digit, alone."""
LEVELS = 5
UNPARSED = 4.0
"""Absolute error of an answer without a score; its squared error is 16."""

_NAMED = re.compile(r"\banswer\b\s*:\s*(-?\d+(?:\.\d+)?)", re.IGNORECASE)
_LEADING = re.compile(r"^\s*(-?\d+(?:\.\d+)?)\b")


def prompt(task: str) -> str:
    """The prompt for a task. The task goes in as it is: braces in it mean nothing."""
    return PROMPT.replace("{task}", task)


def parse_answer(text: str | None) -> float | None:
    """The number after the first ``answer:``, else the number that the text begins with, else None.

    As the benchmark does it: any number counts, in 1..5 or not. Whoever gives rewards refuses those
    outside, see :func:`score_of_answer`.
    """
    stripped = (text or "").strip()
    found = _NAMED.search(stripped) or _LEADING.search(stripped)
    return float(found.group(1)) if found else None


def score_of_answer(text: str | None) -> int | None:
    """1..5 if the text answers with one of these whole numbers, else None."""
    number = parse_answer(text)
    return int(number) if number in (1.0, 2.0, 3.0, 4.0, 5.0) else None


def absolute_error(answer: float | None, label: float) -> float:
    """What the benchmark counts for one answer, :data:`UNPARSED` for None."""
    return UNPARSED if answer is None else abs(answer - label)


def squared_error(answer: float | None, label: float) -> float:
    """What the benchmark counts for one answer, 16 for None."""
    return UNPARSED**2 if answer is None else (answer - label) ** 2


def macro_mae(errors: Mapping[str, Sequence[float]]) -> float:
    """Mean over subsets of the mean absolute error in each; every subset weighs the same.

    Raises:
        ValueError: no subset, or an empty one.
    """
    if not errors or not all(len(e) for e in errors.values()):
        raise ValueError(f"errors must have subsets, none empty, got {list(errors)}")
    return float(np.mean([np.mean(e) for e in errors.values()]))


def reward(expected: ArrayLike) -> NDArray[np.float64]:
    """(E - 1) / 4: expected scores 1..5 to rewards 0..1."""
    return (np.asarray(expected, np.float64) - 1) / (LEVELS - 1)


def shaped(potential: ArrayLike, gamma: float, done: bool = True) -> NDArray[np.float64]:
    r"""Potential-based shaping (Ng, Harada and Russell 1999, Eq. 2): it keeps optimal policies.

    .. math:: F_t = \gamma \Phi(s_{t+1}) - \Phi(s_t)

    Args:
        potential: (T + 1,) progress of the states of an episode.
        gamma: discount of the learner.
        done: the episode ended for good: the potential of its last state counts as 0 there, or
            the sum of the shaping would depend on where it ended.

    Returns:
        (T,) shaping of each step.
    """
    phi = np.asarray(potential, np.float64)
    if phi.ndim != 1 or len(phi) < 2 or not np.isfinite(phi).all():
        raise ValueError(f"potential must be (T + 1,) finite, T >= 1, got shape {phi.shape}")
    if not 0 <= gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {gamma}")
    after = phi[1:].copy()
    if done:
        after[-1] = 0.0
    return gamma * after - phi[:-1]


def balanced(
    labels: Iterable[int], rng: np.random.Generator, levels: Sequence[int] = (1, 2, 3, 4, 5)
) -> NDArray[np.int64]:
    """Indices of as many examples of each label as the rarest has, shuffled.

    Raises:
        ValueError: a label has no example.
    """
    seen = np.asarray(list(labels))
    where = [np.flatnonzero(seen == level) for level in levels]
    count = min(len(w) for w in where)
    if count == 0:
        missing = [level for level, w in zip(levels, where, strict=True) if not len(w)]
        raise ValueError(f"every label needs an example, none of {missing}")
    picked = np.concatenate([rng.permutation(w)[:count] for w in where])
    return np.asarray(rng.permutation(picked), np.int64)
