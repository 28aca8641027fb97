"""Bands that are stacked in the tensors of an element: one tensor, or several with names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xee_tf.errors import OptionError, shorten
from xee_tf.options import read_names

__all__ = ["Bands", "Groups", "group_names", "pack", "read_groups"]

Bands = str | Sequence[str] | Mapping[str, str | Sequence[str]]
"""The bands of one tensor, or those of each of several tensors by name."""

Groups = Mapping[str | None, tuple[str, ...]]
"""The bands of each tensor by its name; the name is None if an element has a single tensor."""


def read_groups(
    value: Any, name: str, example: Sequence[str] = ("B4", "B3"), *, allow_empty: bool = False
) -> Groups:
    """Parse the bands of inputs or targets.

    Examples
    --------
    >>> read_groups("B4", "inputs")
    {None: ('B4',)}
    >>> read_groups({"image": ["B4", "B3"], "aux": "slope"}, "inputs")
    {'image': ('B4', 'B3'), 'aux': ('slope',)}
    """
    if not isinstance(value, Mapping):
        names = read_names(value, name, example, allow_empty=allow_empty)
        return {None: names} if names else {}
    if not value or not all(isinstance(key, str) and key for key in value):
        raise OptionError(
            f"{name} must be names of bands, or a mapping from names of tensors to bands such as "
            f"{{'image': {list(example)}}}; got {shorten(repr(value))}."
        )
    return {key: read_names(bands, f"{name}[{key!r}]", example) for key, bands in value.items()}


def group_names(groups: Groups) -> list[str]:
    """Return the bands of all tensors, each once.

    Examples
    --------
    >>> group_names({"image": ("B4", "B3"), "aux": ("slope", "B4")})
    ['B4', 'B3', 'slope']
    """
    return list(dict.fromkeys(band for names in groups.values() for band in names))


def pack(groups: Groups, tensors: Sequence[Any]) -> Any:
    """Return the tensors as a user asked for them: one tensor, or a dictionary.

    Examples
    --------
    >>> pack({None: ("B4",)}, [1]), pack({"a": ("B4",), "b": ("B3",)}, [1, 2])
    (1, {'a': 1, 'b': 2})
    """
    return tensors[0] if None in groups else dict(zip(groups, tensors, strict=True))
