"""ROS parameters from a frozen dataclass: one source for names, defaults, docs and ranges."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

C = TypeVar("C")
FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides.")
"""Parameters that rclpy itself declares."""


def field_docs(config: type) -> dict[str, str]:
    """Field name -> the string literal under it, on one line."""
    docs: dict[str, str] = {}
    for base in reversed(config.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for line, below in zip(body, body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(below, ast.Expr):
                if isinstance(below.value, ast.Constant) and isinstance(line.target, ast.Name):
                    docs[line.target.id] = " ".join(str(below.value.value).split())
    return docs


def checked(config: type[C], given: Mapping[str, Any]) -> C:
    """``config`` with ``given`` values over the defaults; a whole number fits a float field.

    Raises:
        ValueError: an unknown key, a value of another type than the default's, or out of range.
    """
    known = {f.name: f for f in fields(config)}  # type: ignore[arg-type]
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in known:
            raise ValueError(
                f"{name} is not a parameter of {config.__name__}, known are {sorted(known)}"
            )
        default = _default(known[name])
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if isinstance(default, tuple) and not isinstance(value, str):
            value = tuple(type(default[0])(v) if default else v for v in value)
        if type(value) is not type(default):
            raise ValueError(f"{name} must be {type(default).__name__}, got {value!r}")
        if "range" in known[name].metadata:
            low, high = known[name].metadata["range"]
            if not low <= value <= high:
                raise ValueError(f"{name} must be in [{low}, {high}], got {value}")
        values[name] = value
    return config(**values)


def declare(node: Any, config: type[C]) -> C:
    """Declare every field as a read-only parameter of ``node`` and return the config that holds.

    Raises:
        ValueError: as :func:`checked`; keys come from the node's parameter files too.
    """
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
    from rclpy.parameter import Parameter

    overrides = node._parameter_overrides  # the only place that shows keys nobody declared
    given = {name: p.value for name, p in overrides.items() if not name.startswith(FOREIGN)}
    made = checked(config, given)
    docs = field_docs(config)
    for spec in fields(config):  # type: ignore[arg-type]
        value = getattr(made, spec.name)
        if isinstance(value, tuple):
            value = list(value)
        described = ParameterDescriptor(description=docs.get(spec.name, spec.name), read_only=True)
        if "range" in spec.metadata:
            low, high = spec.metadata["range"]
            if isinstance(value, float):
                described.floating_point_range = [FloatingPointRange(from_value=low, to_value=high)]
            else:
                described.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        if spec.name in given:
            overrides[spec.name] = Parameter(spec.name, value=value)
        node.declare_parameter(spec.name, value, described)
    return made


def _default(spec: Any) -> Any:
    return spec.default_factory() if spec.default is MISSING else spec.default
