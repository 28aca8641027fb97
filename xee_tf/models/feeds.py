"""Tensors built from bands, properties and columns, and the shapes that they can have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.dtypes import coerce
from xee_tf.models.types import PixelType
from xee_tf.training import Scales

__all__ = ["Feed", "Item", "Shape", "arrangements", "fits"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """A band, property or column that can be an input of a model.

    Parameters
    ----------
    dtype : numpy.dtype
        The dtype; object for strings.
    shape : tuple of int
        The shape of its value in a pixel or row; empty for a scalar.
    tiled : bool
        Whether it is a band, with a value for each pixel; otherwise it has one value per instance.
    """

    dtype: np.dtype[Any]
    shape: Shape = ()
    tiled: bool = False


@dataclass(frozen=True)
class Feed:
    """An input of a model and the bands, properties or columns that it is built from.

    Parameters
    ----------
    input : str
        The name of the input.
    members : mapping of str to Item
        Bands, properties or columns. Several are stacked along the last axis; scalars are repeated to the
        shape of arrays.
    overrides : mapping of str to PixelType
        The types that members are converted to first.
    dtype : numpy.dtype
        The dtype of the tensor.
    shape : tuple of int
        The shape of the tensor in each pixel or row.
    scales : mapping of str to (float, float), optional
        The offsets and scales that normalize members.
    """

    input: str
    members: Mapping[str, Item]
    overrides: Mapping[str, PixelType]
    dtype: np.dtype[Any]
    shape: Shape
    scales: Scales = field(default_factory=dict)

    @property
    def tiled(self) -> bool:
        """Whether it has a value for each pixel."""
        return next(iter(self.members.values())).tiled

    @property
    def itemsize(self) -> int:
        """Bytes per pixel or row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, values: Arrays) -> npt.NDArray[Any]:
        """Build the tensor of a batch.

        Parameters
        ----------
        values : mapping of str to ndarray
            Values of the members: ``(n, height, width, *shape)`` for bands in tiles, ``(n, *shape)`` for
            others.

        Returns
        -------
        ndarray
            An array with the first axes of the values, followed by `shape`.
        """
        arrays = [self._converted(name, values[name]) for name in self.members]
        first = next(iter(self.members.values()))
        lead = arrays[0].shape[: arrays[0].ndim - len(first.shape)]
        if len(arrays) == 1:
            [name] = self.members
            return coerce(arrays[0], self.dtype, named=self._named(name)).reshape(lead + self.shape)
        out = np.empty(lead + self.shape, self.dtype)
        *steps, _ = self.shape
        start = 0
        for channel, (array, (name, item)) in enumerate(zip(arrays, self.members.items(), strict=True)):
            if steps:  # (*lead, *steps, band)
                ones = (1,) * (len(steps) - len(item.shape))
                repeated = np.broadcast_to(array.reshape(lead + ones + item.shape), out.shape[:-1])
                coerce(repeated, self.dtype, out[..., channel], self._named(name))
            else:
                stop = start + math.prod(item.shape)
                part = array.reshape(*lead, stop - start)
                coerce(part, self.dtype, out[..., start:stop], self._named(name))
                start = stop
        return out

    def _named(self, name: str) -> str:
        return f"{'Band' if self.members[name].tiled else 'Input'} {name!r}"

    def _converted(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values of a member as numbers for the model."""
        if name in self.overrides:
            values = _overridden(values, self.overrides[name], self._named(name))
        if name in self.scales:
            offset, scale = map(np.float32, self.scales[name])
            values = coerce(values, np.dtype("float32"), named=self._named(name)) - offset
            values /= scale
        return values


def arrangements(shapes: Sequence[Shape], *, tiled: bool, flat: bool = True) -> list[Shape]:
    """Return the shapes that stacked values can have in a pixel or row, the most common one first.

    Parameters
    ----------
    shapes : sequence of tuple of int
        The shape of each of the values.
    tiled : bool
        Whether the values are bands of an image; otherwise properties, or columns of a table.
    flat : bool, default True
        Whether arrays may be concatenated to channels.

    Returns
    -------
    list of tuple of int
        The possible shapes; empty if the values cannot be stacked.

    Examples
    --------
    >>> arrangements([()], tiled=True), arrangements([(7,)], tiled=True)
    ([(1,), ()], [(7,), (7, 1)])
    >>> arrangements([(7,), (), (7,)], tiled=True)  # steps and bands, or channels
    [(7, 3), (15,)]
    """
    if len(shapes) == 1:
        (shape,) = shapes
        found = [shape, (*shape, 1)]
        return found[::-1] if tiled and not shape else found
    try:
        stacked = [(*np.broadcast_shapes(*shapes), len(shapes))]
    except ValueError:
        stacked = []
    concatenated = [(sum(map(math.prod, shapes)),)]
    if not flat or stacked == concatenated:
        return stacked
    return stacked + concatenated if tiled else concatenated + stacked


def fits(expected: Sequence[int | None], shape: Shape) -> bool:
    """Return whether a model with the input shape `expected` takes `shape`; None is any length."""
    return len(expected) == len(shape) and all(a in (None, b) for a, b in zip(expected, shape, strict=True))


def _overridden(values: npt.NDArray[Any], override: PixelType, named: str) -> npt.NDArray[Any]:
    if override.dtype is not None:
        values = coerce(values, override.dtype, named=named)
    return values if override.limits is None else np.clip(values, *override.limits)
