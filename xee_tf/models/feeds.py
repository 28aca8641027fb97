"""The tensors that bands, properties and columns become, and the shapes that they can have."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.dtypes import coerce
from xee_tf.models.types import PixelType

__all__ = ["Feed", "Item", "Shape", "arrangements", "fits"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """A band, a property or a column that a model may see.

    Parameters
    ----------
    dtype : numpy.dtype
        Object for strings.
    shape : tuple of int
        Of its value in a pixel or a row; empty for a single number.
    tiled : bool
        A band, with a value for each pixel of a tile; else there is one for each instance.
    """

    dtype: np.dtype[Any]
    shape: Shape = ()
    tiled: bool = False


@dataclass(frozen=True)
class Feed:
    """One input of the model and what goes into it.

    Parameters
    ----------
    input : str
    members : mapping from str to Item
        Bands, properties or columns; several are stacked along the last axis, scalars beside arrays being
        repeated.
    overrides : mapping from str to PixelType
        The types that members are coerced to first.
    dtype : numpy.dtype
        Of the tensor.
    shape : tuple of int
        Of the tensor in each pixel or row.
    """

    input: str
    members: Mapping[str, Item]
    overrides: Mapping[str, PixelType]
    dtype: np.dtype[Any]
    shape: Shape

    @property
    def tiled(self) -> bool:
        """Whether it has pixels."""
        return next(iter(self.members.values())).tiled

    @property
    def itemsize(self) -> int:
        """Bytes in a pixel or a row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, values: Arrays) -> npt.NDArray[Any]:
        """The tensor of a batch.

        Parameters
        ----------
        values : mapping from str to ndarray
            Of the members: ``(n, height, width, *shape)`` for bands, ``(n, *shape)`` for others.
        """
        arrays = [
            _overridden(values[name], self.overrides[name]) if name in self.overrides else values[name]
            for name in self.members
        ]
        lead = arrays[0].shape[: 3 if self.tiled else 1]
        if len(arrays) == 1:
            return coerce(arrays[0], self.dtype).reshape(lead + self.shape)
        out = np.empty(lead + self.shape, self.dtype)
        *steps, _ = self.shape
        start = 0
        for channel, (array, item) in enumerate(zip(arrays, self.members.values(), strict=True)):
            if steps:  # (*lead, *steps, band)
                ones = (1,) * (len(steps) - len(item.shape))
                every = np.broadcast_to(array.reshape(lead + ones + item.shape), out.shape[:-1])
                coerce(every, self.dtype, out[..., channel])
            else:
                stop = start + math.prod(item.shape)
                coerce(array.reshape(*lead, stop - start), self.dtype, out[..., start:stop])
                start = stop
        return out


def arrangements(shapes: Sequence[Shape], *, tiled: bool, flat: bool = True) -> list[Shape]:
    """The shapes that values can have together in a pixel or a row, the usual one first.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of each of the values.
    tiled : bool
        They are bands of an image; else properties, or columns of a table.
    flat : bool
        Whether arrays may become channels one behind the other.

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
        together = [(*np.broadcast_shapes(*shapes), len(shapes))]
    except ValueError:
        together = []
    side_by_side = [(sum(map(math.prod, shapes)),)]
    if not flat or together == side_by_side:
        return together
    return together + side_by_side if tiled else side_by_side + together


def fits(wanted: Sequence[int | None], shape: Shape) -> bool:
    """Whether a shape is what a model takes; None stands for any length."""
    return len(wanted) == len(shape) and all(a in (None, b) for a, b in zip(wanted, shape, strict=True))


def _overridden(values: npt.NDArray[Any], override: PixelType) -> npt.NDArray[Any]:
    if override.dtype is not None:
        values = coerce(values, override.dtype)
    return values if override.limits is None else np.clip(values, *override.limits)
