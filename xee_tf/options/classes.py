"""Options of a call as the fields of a frozen class, each with its default and its check."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from xee_tf.errors import OptionError, shorten

__all__ = [
    "IfExists",
    "Options",
    "by_name",
    "check_default_value",
    "choice",
    "flag",
    "is_number",
    "one_of",
    "option",
    "parse",
    "read_depth",
]

IfExists = Literal["error", "overwrite"]

Check = Callable[[Any, str], Any]
"""Takes what a user gave and the name of the option; returns the value to use, or raises OptionError."""

Kind = TypeVar("Kind", bound="Options")


def option(default: Any = MISSING, check: Check | None = None, *, nested: bool = False) -> Any:
    """A field of an `Options` class.

    Parameters
    ----------
    default : object, optional
        As a user would write it.
    check : callable, optional
        Checks and converts every value, the default too.
    nested : bool
        Earth Engine has it in ``formatOptions``.
    """
    return field(default=default, metadata={"check": check, "nested": nested})


@dataclass(frozen=True)
class Options:
    """The options of one call, checked and converted when they are made.

    Subclasses are frozen dataclasses whose fields are made by `option`.

    Raises
    ------
    OptionError
        That names the option, the value and what was expected.

    Examples
    --------
    >>> @dataclass(frozen=True, kw_only=True)
    ... class Tiling(Options):
    ...     edge: str = option("drop", choice("drop", "pad"))
    >>> parse(Tiling, {"edge": "pad", "progress": True})
    Tiling(edge='pad')
    >>> Tiling(edge="wrap")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: edge must be 'drop' or 'pad'; got 'wrap'.
    """

    # A TypedDict of what users write, whose types the signatures show.
    _keywords: ClassVar[type | None] = None
    # Whether None stands for the default in every field that `option` made.
    _none_is_default: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for each in fields(self):
            if "check" not in each.metadata:
                continue
            value, check = getattr(self, each.name), each.metadata["check"]
            if value is None and self._none_is_default:
                value = each.default
            if check is not None and (value is not None or each.default is not None):
                value = check(value, each.name)
            object.__setattr__(self, each.name, value)


def parse(kind: type[Kind], options: Mapping[str, Any], *arguments: Any) -> Kind:
    """An `Options` class from `arguments` and those of `options` that it has."""
    known = by_name(kind)
    return kind(*arguments, **{name: value for name, value in options.items() if name in known})


def by_name(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """What can only be given by name; of an `Options` class with the types that users write."""
    written = getattr(getattr(function, "_keywords", None), "__annotations__", {})
    found = {}
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.KEYWORD_ONLY:
            kind = written.get(name, each.annotation)
            found[name] = each.replace(annotation=getattr(kind, "__forward_arg__", kind))
    return found


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
        raise OptionError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def is_number(value: Any) -> bool:
    """Whether an option is a number that float64 holds, of any type; texts and truth values are none."""
    if isinstance(value, str | bytes | bool | np.bool_):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def check_default_value(value: Any, *, finite: bool) -> None:
    """Refuse a ``default_value`` that is not a number, or not a finite one where a record is to hold it."""
    if not is_number(value) or (finite and not math.isfinite(value)):
        kind = "a finite number" if finite else "a number"
        raise OptionError(f"default_value must be {kind}, such as -9999; got {shorten(repr(value))}.")


def read_depth(value: Any, band: str) -> int:
    """The depth that a user gives an array band in ``tensor_depths``.

    Examples
    --------
    >>> read_depth(3.0, "ndvi")
    3
    >>> read_depth(True, "ndvi")
    Traceback (most recent call last):
    xee_tf.errors.OptionError: The tensor depth of 'ndvi' must be a whole number above 0; got True.
    """
    if not is_number(value) or not 1 <= value < 2**62 or value != int(value):
        raise OptionError(f"The tensor depth of {band!r} must be a whole number above 0; got {value!r}.")
    return int(value)
