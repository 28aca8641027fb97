"""The layout of Earth Engine's ND_ARRAYS: no names, bands first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.records.tensor_types import STRING, tensor_type
from xee_tf.remote.payloads.arrays import Arrays

__all__ = ["bands_apart", "bands_first", "shaped"]

Item = tuple[npt.DTypeLike, tuple[int, ...]]


def bands_first(arrays: Arrays) -> npt.NDArray[Any]:
    """What ND_ARRAYS sends: the arrays of an instance stacked along a new first axis, their order kept.

    Bands, which end with an axis of length 1, lose it: (n, bands, height, width), as PyTorch and Earth
    Engine's samples have it. A single array that is no band stays as it is (our choice: nothing is said
    of it).

    Raises
    ------
    OptionError
        If shapes differ.

    Examples
    --------
    >>> bands_first({"B4": np.zeros((2, 8, 9, 1)), "B5": np.zeros((2, 8, 9, 1))}).shape
    (2, 2, 8, 9)
    """
    parts = [array[..., 0] if array.ndim > 2 and array.shape[-1] == 1 else array for array in arrays.values()]
    if len(parts) == 1 and parts[0].ndim == next(iter(arrays.values())).ndim > 1:
        return parts[0]
    shapes = {array.shape[1:] for array in parts}
    if len(shapes) != 1:
        raise OptionError(
            "ND_ARRAYS has no names, so that all bands must have one shape; got "
            f"{ {name: array.shape[1:] for name, array in arrays.items()} }."
        )
    return np.stack(parts, axis=1)


def bands_apart(array: npt.NDArray[Any], items: Mapping[str, Item]) -> dict[str, npt.NDArray[Any]]:
    """The arrays that `bands_first` put together.

    Raises
    ------
    RecordError
        If their number or shapes are others.

    Examples
    --------
    >>> bands_apart(np.zeros((2, 1, 8, 9)), {"B4": ("uint8", (8, 9, 1))})["B4"].shape
    (2, 8, 9, 1)
    """
    shapes = [shape for _, shape in items.values()]
    if len(shapes) == 1 and array.shape[1:] == shapes[0]:
        parts = [array]
    elif array.ndim < 2 or array.shape[1] != len(items):
        raise RecordError(f"The request has the shape {array.shape}; expected {len(items)} bands on axis 1.")
    else:
        parts = [array[:, place] for place in range(len(items))]
    return {name: shaped(part, item) for (name, item), part in zip(items.items(), parts, strict=True)}


def shaped(values: npt.NDArray[Any], item: Item) -> npt.NDArray[Any]:
    """The values of a feature or band in the dtype and shape that it was sent in."""
    dtype, shape = np.dtype(item[0]), tuple(item[1])
    try:
        if values.dtype == object and tensor_type(dtype) is not STRING:  # one blob of raw bytes
            values = np.array([np.frombuffer(b"".join(row), np.uint8) for row in values.tolist()])
        return values.reshape(len(values), *shape).astype(dtype, copy=False)
    except ValueError:
        raise RecordError(
            f"Instances have values of shape {values.shape[1:]}; expected {dtype} of shape {shape}."
        ) from None
