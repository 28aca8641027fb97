"""Docstrings of functions with options: the descriptions are in the docstrings of the `Options` classes."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["document_options"]

Documented = TypeVar("Documented", bound=Callable[..., Any])

_HEADING = "Parameters\n----------\n"
_NEXT_SECTION = re.compile(r"\n\n(?=[A-Z][\w ]*\n---)")
_NEXT_ENTRY = re.compile(r"\n(?=\S)")


def document_options(*kinds: type) -> Callable[[Documented], Documented]:
    """Add the descriptions of options to the docstring of a function or class.

    The parameters are described in the order of the signature, and an entry ``**options`` is removed.

    Parameters
    ----------
    *kinds : type
        Classes whose docstrings, or those of their bases, describe the options. The function's own docstring
        has precedence.

    Examples
    --------
    >>> class Cropping:
    ...     '''Options of a crop.
    ...
    ...     Parameters
    ...     ----------
    ...     edge : int, default 0
    ...         Width in pixels.
    ...     '''
    >>> @document_options(Cropping)
    ... def crop(path, *, edge=0):
    ...     '''Crop an image.
    ...
    ...     Parameters
    ...     ----------
    ...     path : str
    ...         The image.
    ...     **options
    ...         See `Cropping`.
    ...     '''
    >>> crop.__doc__.splitlines()[-4:]
    ['path : str', '    The image.', 'edge : int, default 0', '    Width in pixels.']
    """

    def decorate(function: Documented) -> Documented:
        if function.__doc__ is None:  # python -OO removes docstrings
            return function
        before, own, after = _split(function.__doc__)
        described: dict[str, str] = {}
        for kind in reversed(kinds):
            described |= _class_entries(kind)
        described |= _entries(own)
        parameters = inspect.signature(function).parameters
        if shown := dict.fromkeys(described[name] for name in parameters if name in described):
            function.__doc__ = f"{before}{_HEADING}" + "\n".join(shown) + after
        return function

    return decorate


@functools.cache  # several functions take the options of a class
def _class_entries(kind: type) -> dict[str, str]:
    """Return the entries in the docstrings of a class and its bases; those of the class have precedence."""
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        entries |= _entries(_split(base.__doc__)[1])
    return entries


def _split(docstring: str | None) -> tuple[str, str, str]:
    """Return the text before the parameters, the parameters, and the text after them."""
    before, _, rest = inspect.cleandoc(docstring or "").partition(_HEADING)
    found = _NEXT_SECTION.search(rest)
    end = found.start() if found else len(rest)
    return before, rest[:end], rest[end:]


def _entries(section: str) -> dict[str, str]:
    """Return the entry of each parameter; parameters that are described together share one."""
    entries = {}
    for text in _NEXT_ENTRY.split(section):
        for name in text.partition("\n")[0].partition(" : ")[0].split(", "):
            entries[name] = text.rstrip()
    return entries
