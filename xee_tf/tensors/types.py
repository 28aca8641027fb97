"""Element types of TensorProto: enum numbers, numpy dtypes and fields."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra

__all__ = ["STRING", "TensorType", "tensor_type", "type_of_number"]

Wire = Literal["fixed", "varint", "bytes"]


@dataclass(frozen=True, slots=True)
class TensorType:
    """An element type.

    Parameters
    ----------
    number : int
        Number in TensorFlow's enum ``DataType``.
    name : str
        Name of the numpy dtype; "string" for strings.
    field : int
        The field of a TensorProto that lists values one by one.
    wire : {"fixed", "varint", "bytes"}
        Encoding of the values in that field.
    """

    number: int
    name: str
    field: int
    wire: Wire

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype, little endian; strings are objects (bytes)."""
        if self.wire == "bytes":
            return np.dtype(object)
        if self.name != "bfloat16":
            return np.dtype(self.name).newbyteorder("<")
        with extra("hosted", "A bfloat16 tensor"):
            from ml_dtypes import bfloat16
        dtype: np.dtype[Any] = np.dtype(bfloat16)
        return dtype


# Complex numbers are listed as pairs of floats, 16-bit floats as their bit patterns.
_TYPES = (
    TensorType(1, "float32", 5, "fixed"),
    TensorType(2, "float64", 6, "fixed"),
    TensorType(3, "int32", 7, "varint"),
    TensorType(4, "uint8", 7, "varint"),
    TensorType(5, "int16", 7, "varint"),
    TensorType(6, "int8", 7, "varint"),
    TensorType(7, "string", 8, "bytes"),
    TensorType(8, "complex64", 9, "fixed"),
    TensorType(9, "int64", 10, "varint"),
    TensorType(10, "bool", 11, "varint"),
    TensorType(14, "bfloat16", 13, "varint"),
    TensorType(17, "uint16", 7, "varint"),
    TensorType(18, "complex128", 12, "fixed"),
    TensorType(19, "float16", 13, "varint"),
    TensorType(22, "uint32", 16, "varint"),
    TensorType(23, "uint64", 17, "varint"),
)
_BY_NUMBER = {kind.number: kind for kind in _TYPES}
_BY_NAME = {kind.name: kind for kind in _TYPES}

STRING = _BY_NAME["string"]


@lru_cache(maxsize=256)
def tensor_type(dtype: npt.DTypeLike) -> TensorType:
    """Return the element type for a numpy dtype.

    Object dtypes and all numpy string dtypes are treated as strings.

    Examples
    --------
    >>> tensor_type("uint16").number, tensor_type("U5").name
    (17, 'string')
    """
    dtype = np.dtype(dtype)
    if dtype.kind in "OSUT":
        return STRING
    try:
        return _BY_NAME[dtype.name]
    except KeyError:
        raise OptionError(
            f"Values of dtype {dtype} cannot be sent as a tensor; supported: {', '.join(_BY_NAME)}."
        ) from None


def type_of_number(number: int) -> TensorType:
    """Return the element type for a number of the enum ``DataType``.

    Examples
    --------
    >>> type_of_number(19).name
    'float16'
    """
    try:
        return _BY_NUMBER[number]
    except KeyError:
        raise RecordError(
            f"A tensor has the element type {number}, which is not supported; supported: "
            f"{', '.join(f'{kind.number} ({kind.name})' for kind in _TYPES)}."
        ) from None
