"""Check single options: flags, numbers, choices."""

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
    "integer",
    "is_number",
    "number",
    "one_of",
    "read_depths",
    "read_names",
]

Check = Callable[[Any, str], Any]
"""A function of a value and the name of its option; returns the converted value or raises OptionError."""


def one_of(name: str, value: Any, allowed: Sequence[Any]) -> None:
    """Check that an option has one of the allowed values.

    Raises
    ------
    OptionError
        If the value is not allowed.

    Examples
    --------
    >>> one_of("blend", "crop", ("crop", "hann"))
    >>> one_of("blend", "gauss", ("crop", "hann", None))
    Traceback (most recent call last):
    xee_tf.errors.OptionError: blend must be 'crop', 'hann' or None; got 'gauss'.
    """
    # "value in allowed" fails for arrays, whose truth value is ambiguous.
    if not any(isinstance(value, type(one)) and value == one for one in allowed):
        *first, last = map(repr, allowed)
        raise OptionError(f"{name} must be {', '.join(first)} or {last}; got {value!r}.")


def choice(*allowed: Any) -> Check:
    """Return a check that accepts only the values `allowed`."""

    def check(value: Any, name: str) -> Any:
        one_of(name, value, allowed)
        return value

    return check


def flag(value: Any, name: str) -> bool:
    """Check an option that is True or False."""
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} must be True or False; got {shorten(repr(value))}.")
    return bool(value)


def check_flags(**values: Any) -> None:
    """Check several options that are True or False, given by name."""
    for name, value in values.items():
        flag(value, name)


def is_number(value: Any) -> bool:
    """Return whether a value is a number of any type that fits float64; strings and booleans are not."""
    if isinstance(value, str | bytes | bool | np.bool_):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def integer(minimum: int | None = None, maximum: int | None = None) -> Callable[[Any, str], int]:
    """Return a check that accepts whole numbers of any type: 8, ``np.int64(8)``, 1e9.

    Examples
    --------
    >>> integer(1)(1e9, "max_file_size")
    1000000000
    >>> integer(1)(1.7, "max_file_size")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: max_file_size must be a whole number of at least 1; got 1.7.
    """

    def check(value: Any, name: str) -> int:
        if is_number(value) and math.isfinite(value) and value == int(value):
            number = int(value)
            if (minimum is None or minimum <= number) and (maximum is None or number <= maximum):
                return number
        allowed = f"a whole number{_range(minimum, maximum)}"
        raise OptionError(f"{name} must be {allowed}; got {shorten(repr(value))}.")

    return check


def number(
    minimum: float | None = None, maximum: float | None = None, *, above: float | None = None
) -> Callable[[Any, str], float]:
    """Return a check that accepts finite numbers; `above` is a lower bound that is not itself allowed.

    Examples
    --------
    >>> number(0, 1)(np.float32(0.5), "masked_threshold")
    0.5
    >>> number(above=0)(True, "timeout")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: timeout must be a number above 0; got True.
    """

    def check(value: Any, name: str) -> float:
        number = float(value) if is_number(value) else math.nan
        low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
        if math.isfinite(number) and low <= number <= high and (above is None or number > above):
            return number
        allowed = _range(minimum, maximum) if above is None else f" above {above}"
        raise OptionError(f"{name} must be a number{allowed}; got {shorten(repr(value))}.")

    return check


def _range(minimum: float | None, maximum: float | None) -> str:
    if minimum is None:
        return "" if maximum is None else f" of at most {maximum}"
    return f" of at least {minimum}" if maximum is None else f" from {minimum} to {maximum}"


def check_default_value(value: Any, *, finite: bool) -> None:
    """Check that ``default_value`` is a number; if `finite`, also that it is finite, as records require."""
    if not is_number(value) or (finite and not math.isfinite(value)):
        kind = "a finite number" if finite else "a number"
        raise OptionError(f"default_value must be {kind}, such as -9999; got {shorten(repr(value))}.")


def read_depths(given: Mapping[str, Any]) -> dict[str, int]:
    """Check the depths of array bands in ``tensor_depths``, and convert them to int.

    Examples
    --------
    >>> read_depths({"ndvi": 3.0})
    {'ndvi': 3}
    """
    depth = integer(1, (1 << 31) - 1)
    return {name: depth(value, f"tensor_depths[{name!r}]") for name, value in given.items()}


def read_names(
    value: Any, name: str, example: Sequence[str] = ("B4", "B3"), *, allow_empty: bool = False
) -> tuple[str, ...]:
    """Return the names in an option, which must be unique; the option may be a single name.

    Examples
    --------
    >>> read_names("B4", "bands")
    ('B4',)
    >>> read_names(5, "bands")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: bands must be a list of names, such as ['B4', 'B3']; got 5.
    """
    # Sets have no order. The values of a mapping would be lost, and bytes would become numbers.
    refused = isinstance(value, Mapping | set | frozenset | bytes | bytearray | memoryview)
    try:
        given = [value] if isinstance(value, str) else None if refused else list(value)
    except TypeError:  # not iterable
        given = None
    if given is None or not all(isinstance(item, str) for item in given):
        got = shorten(repr(value if given is None else given))
        raise OptionError(f"{name} must be a list of names, such as {list(example)}; got {got}.")
    names = tuple(map(str, given))
    if not names and not allow_empty:
        raise OptionError(f"{name} is empty: pass at least one name, such as {list(example)}.")
    if "" in names:
        raise OptionError(f"{name} contains an empty name: {shorten(repr(given))}. Remove it.")
    if len(set(names)) < len(names):
        repeated = next(item for item in names if names.count(item) > 1)
        raise OptionError(f"{name} contains {repeated!r} more than once: {shorten(repr(given))}.")
    return names


def check_storage_options(value: Any) -> None:
    """Check that ``storage_options`` is None or a mapping; errors never show values (credentials)."""
    if not (value is None or (isinstance(value, Mapping) and all(isinstance(key, str) for key in value))):
        raise OptionError(
            f"storage_options must be a mapping of names to values; got {type(value).__name__}."
        )
