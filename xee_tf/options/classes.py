"""Options of a call as the fields of a frozen class, each with its default and its check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

from xee_tf.options.checks import Check

__all__ = ["IfExists", "Options", "by_name", "option", "parse"]

IfExists = Literal["error", "overwrite"]

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
    >>> from xee_tf.options import choice
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
