"""What the settings of tokenizers may be: one table for the configs of all kinds, so that none forgets a check.

Whole numbers may come as NumPy's and are stored as Python's, which JSON takes; a float is no whole number, not even 4.0: it tells
of an arithmetic that went another way than its author thought.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from numbers import Real
from operator import index
from typing import Any, NamedTuple

__all__ = ["check_device", "check_settings"]

_DEVICE = re.compile(r"cpu|cuda(:\d+)?")
_MOST_LEVELS, _WIDEST = 26, 2**20


class _Range(NamedTuple):
    low: float
    high: float = math.inf
    open_below: bool = False
    open_above: bool = False

    def holds(self, value: float) -> bool:
        """Return whether `value` is finite and inside."""
        above = value > self.low if self.open_below else value >= self.low
        below = value < self.high if self.open_above else value <= self.high
        return math.isfinite(value) and above and below

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"{'>' if self.open_below else '>='} {self.low:g}"
        return f"in {'(' if self.open_below else '['}{self.low:g}, {self.high:g}{')' if self.open_above else ']'}"


_WHOLE = {
    "seed": _Range(0),
    "max_fit_rows": _Range(1),
    "max_iterations": _Range(1),
    "num_steps": _Range(1),
    "batch_size": _Range(1),
    "latent_dim": _Range(1),
    "hidden_dim": _Range(1),
    "num_blocks": _Range(1),
    "candidates": _Range(1),
    "num_groups": _Range(1),
    "regroup_every": _Range(1),
    "revive_every": _Range(0),
    "sinkhorn_iterations": _Range(1),
    "exact_rows": _Range(1),
    "beam": _Range(1, 64),
    "rotations": _Range(0),
    "hashed_levels": _Range(0),
    "digits": _Range(2),
}
_REAL = {
    "learning_rate": _Range(0, open_below=True),
    "tolerance": _Range(0),
    "beta": _Range(0),
    "sinkhorn_epsilon": _Range(0),
    "alignment": _Range(0),
    "diversity": _Range(0),
    "warm_start": _Range(0, 1, open_above=True),
}


def check_settings(config: Any, **lowest: int) -> None:  # noqa: ANN401  a frozen dataclass
    """Check every setting of a tokenizer's config, and store whole numbers as Python's.

    `lowest` names the least of a whole number where the kind's differs from that of most. Raises `ValueError` that names the
    setting, its value and its range.
    """
    for field in fields(config):
        name, value = field.name, getattr(config, field.name)
        if name in ("widths", "hidden"):
            object.__setattr__(config, name, _whole_tuple(name, value))
        elif name in _WHOLE:
            allowed = _Range(lowest[name], _WHOLE[name].high) if name in lowest else _WHOLE[name]
            object.__setattr__(config, name, _whole(name, value, allowed))
        elif name in _REAL and not (isinstance(value, Real) and not isinstance(value, bool) and _REAL[name].holds(float(value))):
            raise ValueError(f"{name} must be a finite number {_REAL[name]}, got {value!r}")
        elif name == "device":
            check_device(value)
    _check_widths(config)


def check_device(device: object) -> None:
    """Raise `ValueError` unless `device` is ``cpu``, ``cuda`` or ``cuda:<number>``; whether it is there is another question.

    >>> check_device("cuda:1")
    """
    if not isinstance(device, str) or not _DEVICE.fullmatch(device):
        raise ValueError(f"device must be cpu or cuda[:n], got {device!r}")


def _check_widths(config: Any) -> None:  # noqa: ANN401
    widths = getattr(config, "widths", None)
    if widths is None:  # a wrapper's config: the tokenizer inside has them
        return
    if not widths or len(widths) > _MOST_LEVELS or not all(1 <= width <= _WIDEST for width in widths):
        raise ValueError(f"widths must be 1 to {_MOST_LEVELS} numbers in [1, {_WIDEST}], one per level, got {widths}")
    if config.max_fit_rows < max(widths):
        raise ValueError(f"max_fit_rows must be >= the widest level ({max(widths)}), got {config.max_fit_rows}")


def _whole_tuple(name: str, values: object) -> tuple[int, ...]:
    if isinstance(values, str) or not hasattr(values, "__iter__"):
        raise ValueError(f"{name} must be whole numbers, one per {'level' if name == 'widths' else 'layer'}, got {values!r}")
    return tuple(_whole(name, value, _Range(1)) for value in values)


def _whole(name: str, value: Any, allowed: _Range) -> int:  # noqa: ANN401  whatever the caller gave
    try:
        number = index(value)  # its TypeError is the check
    except TypeError:
        raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}") from None
    if isinstance(value, bool) or not allowed.holds(number):
        raise ValueError(f"{name} must be a whole number {allowed}, got {value!r}")
    return number
