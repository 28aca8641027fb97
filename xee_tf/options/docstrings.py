"""Docstrings of functions with options: the descriptions are in the docstrings of the `Options` classes."""

from __future__ import annotations

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
        sources = [base.__doc__ for kind in kinds for base in kind.__mro__]
        for section in (*(_split(each)[1] for each in reversed(sources)), own):
            described |= _entries(section)
        parameters = inspect.signature(function).parameters
        if shown := dict.fromkeys(described[name] for name in parameters if name in described):
            function.__doc__ = f"{before}{_HEADING}" + "\n".join(shown) + after
        return function

    return decorate


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
