"""The checks of single options: flags, numbers, choices."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from xee_tf.errors import OptionError, shorten

__all__ = [
    "Check",
    "check_default_value",
    "check_flags",
    "check_storage_options",
    "choice",
    "flag",
    "is_number",
    "number",
    "one_of",
    "read_depths",
    "whole",
]

Check = Callable[[Any, str], Any]
"""Takes what a user gave and the name of the option; returns the value to use, or raises OptionError."""


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Refuse a value that an option may not have.

    Examples
    --------
    >>> one_of("blend", "crop", ("crop", "hann"))
    >>> one_of("blend", "gauss", ("crop", "hann", None))
    Traceback (most recent call last):
    xee_tf.errors.OptionError: blend must be 'crop', 'hann' or None; got 'gauss'.
    """
    # "value in allowed" would ask an array for one truth.
    if not any(isinstance(value, type(one)) and value == one for one in allowed):
        *first, last = map(repr, allowed)
        raise OptionError(f"{name} must be {', '.join(first)} or {last}; got {value!r}.")


def choice(*allowed: Any) -> Check:
    """The check of an option that has a few values."""

    def check(value: Any, name: str) -> Any:
        one_of(name, value, allowed)
        return value

    return check


def flag(value: Any, name: str) -> bool:
    """The check of an option that is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} must be True or False; got {shorten(repr(value))}.")
    return bool(value)


def check_flags(**values: Any) -> None:
    """Refuse options that are neither True nor False."""
    for name, value in values.items():
        flag(value, name)


def is_number(value: Any) -> bool:
    """Whether an option is a number that float64 holds, of any type; texts and truth values are none."""
    if isinstance(value, str | bytes | bool | np.bool_):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def whole(least: int | None = None, most: int | None = None) -> Callable[[Any, str], int]:
    """The check of an option that is a whole number, of any type: 8, ``np.int64(8)``, 1e9.

    Examples
    --------
    >>> whole(1)(1e9, "max_file_size")
    1000000000
    >>> whole(1)(1.7, "max_file_size")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: max_file_size must be a whole number of at least 1; got 1.7.
    """

    def check(value: Any, name: str) -> int:
        if is_number(value) and math.isfinite(value) and value == int(value):
            found = int(value)
            if (least is None or least <= found) and (most is None or found <= most):
                return found
        raise OptionError(f"{name} must be a whole number{_range(least, most)}; got {shorten(repr(value))}.")

    return check


def number(
    least: float | None = None, most: float | None = None, *, above: float | None = None
) -> Callable[[Any, str], float]:
    """The check of an option that is a finite number.

    Examples
    --------
    >>> number(0, 1)(np.float32(0.5), "masked_threshold")
    0.5
    >>> number(above=0)(True, "timeout")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: timeout must be a number above 0; got True.
    """

    def check(value: Any, name: str) -> float:
        found = float(value) if is_number(value) else math.nan
        low, high = -math.inf if least is None else least, math.inf if most is None else most
        if math.isfinite(found) and low <= found <= high and (above is None or found > above):
            return found
        wanted = _range(least, most) if above is None else f" above {above}"
        raise OptionError(f"{name} must be a number{wanted}; got {shorten(repr(value))}.")

    return check


def _range(least: float | None, most: float | None) -> str:
    if least is None:
        return "" if most is None else f" of at most {most}"
    return f" of at least {least}" if most is None else f" from {least} to {most}"


def check_default_value(value: Any, *, finite: bool) -> None:
    """Refuse a ``default_value`` that is not a number, or not a finite one where a record is to hold it."""
    if not is_number(value) or (finite and not math.isfinite(value)):
        kind = "a finite number" if finite else "a number"
        raise OptionError(f"default_value must be {kind}, such as -9999; got {shorten(repr(value))}.")


def read_depths(given: Mapping[str, Any]) -> dict[str, int]:
    """The depths of array bands in ``tensor_depths``.

    Examples
    --------
    >>> read_depths({"ndvi": 3.0})
    {'ndvi': 3}
    """
    depth = whole(1, (1 << 31) - 1)
    return {name: depth(value, f"tensor_depths[{name!r}]") for name, value in given.items()}


def check_storage_options(value: Any) -> None:
    """Refuse ``storage_options`` that are no mapping, whose values may be credentials."""
    if not (value is None or (isinstance(value, Mapping) and all(isinstance(key, str) for key in value))):
        raise OptionError(
            f"storage_options must be a mapping from names to values; got {type(value).__name__}."
        )
