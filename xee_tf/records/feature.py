"""A feature of a record: its name, and the list that holds its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError
from xee_tf.names import check_key
from xee_tf.options import one_of
from xee_tf.varints import varint_bound

__all__ = ["STORED", "STRINGS", "Feature", "FeatureTypes", "Kind", "kind_of", "written_dtype"]

Kind = Literal["bytes", "float", "int64"]
"""The three lists that a feature of an Example may hold."""

FeatureTypes = Literal["float", "band"]

STORED: dict[Kind, str] = {"float": "<f4", "bytes": "|u1", "int64": "<i8"}
"""The dtype that the values of each kind are read as."""

STRINGS = "|S0"
"""The dtype of a feature of byte strings, of any lengths."""


def kind_of(dtype: npt.DTypeLike, feature_types: FeatureTypes = "float") -> Kind:
    """The kind of list that carries a band of some dtype.

    ==================  =========  =========
    dtype               "float"    "band"
    ==================  =========  =========
    bool, uint8         float      bytes (one blob of raw values)
    other integers      float      int64
    floats              float      float
    ==================  =========  =========

    "float" is what Earth Engine's guide says ("all numbers are coerced to float"), "band" what its
    writer really does with images (real files; bool is taken for a byte, our choice).

    Raises
    ------
    OptionError
        If `feature_types` is unknown, or no list can carry the dtype.

    Examples
    --------
    >>> kind_of("uint8"), kind_of("uint8", "band"), kind_of("int16", "band")
    ('float', 'bytes', 'int64')
    """
    one_of("feature_types", feature_types, get_args(FeatureTypes))
    dtype = np.dtype(dtype)
    if dtype.kind not in "biuf":
        raise OptionError(
            f"Values of dtype {dtype} cannot be stored in a TFRecord: convert them to a real number type."
        )
    if feature_types == "float" or dtype.kind == "f":
        return "float"
    return "bytes" if dtype in (np.dtype(bool), np.dtype(np.uint8)) else "int64"


def written_dtype(dtype: npt.DTypeLike, feature_types: FeatureTypes = "float") -> str:
    """The dtype in which the values of a band are written: an integer of int64 lists keeps its own.

    Examples
    --------
    >>> written_dtype("int16"), written_dtype("bool", "band"), written_dtype("int16", "band")
    ('<f4', '|u1', '<i2')
    """
    kind = kind_of(dtype, feature_types)
    return np.dtype(dtype).newbyteorder("=").str if kind == "int64" else STORED[kind]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a record.

    Parameters
    ----------
    name : str
        Its key: the name of the band or column.
    kind : {"bytes", "float", "int64"}
        The list that holds its values.
    size : int
        Values a record. Of a blob (dtype "|u1") the bytes of its only byte string; of byte strings (dtype
        `STRINGS`) how many there are.
    dtype : str
        numpy dtype of the values that are written or read: "<f4" for float, any integer for int64, "|u1" or
        `STRINGS` for bytes.
    """

    name: str
    kind: Kind
    size: int
    dtype: str

    @classmethod
    def of(cls, name: str, dtype: npt.DTypeLike, size: int, feature_types: FeatureTypes = "float") -> Feature:
        """The feature that holds a band of some dtype; see `kind_of`.

        Examples
        --------
        >>> Feature.of("landcover", "int16", 65536, "band")
        Feature(name='landcover', kind='int64', size=65536, dtype='<i2')
        """
        kind = kind_of(dtype, feature_types)
        return cls(check_key(name), kind, size, written_dtype(dtype, feature_types))

    @classmethod
    def stored(cls, name: str, kind: Kind, size: int) -> Feature:
        """The feature of values as they are read from a list of some kind; bytes are a blob.

        Examples
        --------
        >>> Feature.stored("class", "int64", 1)
        Feature(name='class', kind='int64', size=1, dtype='<i8')
        """
        return cls(name, kind, size, STORED[kind])

    @classmethod
    def strings(cls, name: str, size: int = 1) -> Feature:
        """The feature of byte strings of any lengths.

        Examples
        --------
        >>> Feature.strings("site")
        Feature(name='site', kind='bytes', size=1, dtype='|S0')
        """
        return cls(name, "bytes", size, STRINGS)

    @property
    def exact(self) -> bool:
        """Whether its values take the same number of bytes in every record."""
        return self.kind != "int64" and self.dtype != STRINGS

    @property
    def max_bytes(self) -> int:
        """Bytes of the values; the most that the dtype can need where not `exact`, none of strings."""
        if self.dtype == STRINGS:
            return 0
        width = {"bytes": 1, "float": 4}.get(self.kind) or varint_bound(self.dtype)
        return width * self.size
