"""Docstrings of functions whose options are described in one other place."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import ParamSpec, TypeVar

__all__ = ["document_options"]

P = ParamSpec("P")
R = TypeVar("R")

_HEADING = "Parameters\n----------\n"
_NEXT_SECTION = re.compile(r"\n\n(?=[A-Z][\w ]*\n---)")
_NEXT_ENTRY = re.compile(r"\n(?=\S)")


def document_options(*docstrings: str | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    r"""Replace ``**options`` in a numpydoc docstring with the descriptions of the single options.

    The parameters are described in the order of the signature that the function shows.

    Parameters
    ----------
    *docstrings : str or None
        Docstrings with a section of parameters; the first one that describes an option is used.

    Examples
    --------
    >>> @document_options("Crop.\n\nParameters\n----------\nedge : int\n    In pixels.")
    ... def crop(path, *, edge=0, **options):
    ...     '''Crop an image.
    ...
    ...     Parameters
    ...     ----------
    ...     path : str
    ...         The image.
    ...     **options
    ...         See ``Crop``.
    ...     '''
    >>> crop.__doc__.splitlines()[-4:]
    ['path : str', '    The image.', 'edge : int', '    In pixels.']
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        if function.__doc__ is not None:  # python -OO removes docstrings
            before, own, after = _split(function.__doc__)
            texts: dict[str, str] = {}
            for section in (*(_split(each)[1] for each in reversed(docstrings)), own):
                texts |= _entries(section)
            parameters = inspect.signature(function).parameters
            shown = dict.fromkeys(texts[name] for name in parameters if name in texts)
            function.__doc__ = f"{before}{_HEADING}" + "\n".join(shown) + after
        return function

    return decorate


def _split(docstring: str | None) -> tuple[str, str, str]:
    """The text before the parameters, the parameters, and the text after them."""
    before, _, rest = inspect.cleandoc(docstring or "").partition(_HEADING)
    found = _NEXT_SECTION.search(rest)
    end = found.start() if found else len(rest)
    return before, rest[:end], rest[end:]


def _entries(section: str) -> dict[str, str]:
    """The description of each parameter; parameters that are described together share it."""
    entries = {}
    for text in _NEXT_ENTRY.split(section):
        for name in text.partition("\n")[0].partition(" : ")[0].split(", "):
            entries[name] = text.rstrip()
    return entries
