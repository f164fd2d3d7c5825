"""numba's ``njit`` where numba is installed, plain Python where it is not (a robot without it)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

try:
    from numba import njit, prange
except ImportError:  # the robot path needs numpy, opencv and onnxruntime alone
    prange = range  # type: ignore[misc]

    def njit(*args: Any, **kwargs: Any) -> Any:  # type: ignore[no-redef]
        """Return the function as it is."""
        if args and callable(args[0]):
            return args[0]
        return lambda function: function


__all__ = ["njit", "prange"]
