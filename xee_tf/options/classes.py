"""Represent the options of a call as the fields of a frozen class, each with its default and its check."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeVar

from xee_tf.options.checks import Check

__all__ = ["IfExists", "Options", "keyword_parameters", "option", "parse"]

IfExists = Literal["error", "overwrite", "resume"]

Kind = TypeVar("Kind", bound="Options")


def option(default: Any = MISSING, check: Check | None = None, *, nested: bool = False) -> Any:
    """Define a field of an `Options` class.

    Parameters
    ----------
    default : object, optional
        The default as a user would write it.
    check : callable, optional
        Checks and converts every value, including the default.
    nested : bool
        Whether the option belongs to ``formatOptions`` in Earth Engine.
    """
    return field(default=default, metadata={"check": check, "nested": nested})


@dataclass(frozen=True)
class Options:
    """Base class for the options of one call, which are checked and converted on creation.

    Subclasses are frozen dataclasses whose fields are defined by `option`.

    Raises
    ------
    OptionError
        If a value is not allowed. The message has the option, the value and what was expected.

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

    # A TypedDict of the types before conversion, which signatures show.
    _keywords: ClassVar[type | None] = None
    # Whether None means the default in every field that `option` defines.
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
    """Create an `Options` class from `arguments` and from those of `options` that are its fields."""
    known = keyword_parameters(kind)
    return kind(*arguments, **{name: value for name, value in options.items() if name in known})


def keyword_parameters(function: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """Return the keyword-only parameters; for an `Options` class, with the types before conversion."""
    types = getattr(getattr(function, "_keywords", None), "__annotations__", {})
    found = {}
    for name, each in inspect.signature(function).parameters.items():
        if each.kind is each.KEYWORD_ONLY:
            kind = types.get(name, each.annotation)
            found[name] = each.replace(annotation=getattr(kind, "__forward_arg__", kind))
    return found
