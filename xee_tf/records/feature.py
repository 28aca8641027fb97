"""A feature of a record: its name and the list that holds its values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.errors import OptionError
from xee_tf.names import check_key
from xee_tf.options import one_of
from xee_tf.varints import varint_bound

__all__ = ["LIST_DTYPES", "Feature", "FeatureTypes", "Kind", "kind_of", "written_dtype"]

Kind = Literal["bytes", "float", "int64"]
"""The kinds of lists in a feature of an Example."""

FeatureTypes = Literal["float", "band"]
"""How the dtype of a band determines the kind of its list; see `kind_of`."""

LIST_DTYPES: dict[Kind, str] = {"float": "<f4", "bytes": "|u1", "int64": "<i8"}
"""The dtype to which the values of each kind of list are decoded."""

_BYTE_STRINGS = "|S0"  # dtype of features of byte strings, which may have any length


def kind_of(dtype: npt.DTypeLike, feature_types: FeatureTypes = "float") -> Kind:
    """Return the kind of list in which a band of the given dtype is stored.

    ==================  =========  =========
    dtype               "float"    "band"
    ==================  =========  =========
    bool, uint8         float      bytes (one blob of raw values)
    other integers      float      int64
    floats              float      float
    ==================  =========  =========

    "float" follows Earth Engine's guide ("all numbers are coerced to float"). "band" follows Earth Engine's
    own image exports; storing bool as bytes is not specified by Earth Engine.

    Raises
    ------
    OptionError
        If `feature_types` is unknown, or no list can store the dtype.

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
    """Return the dtype in which the values of a band are written; int64 lists keep the integer dtype.

    Examples
    --------
    >>> written_dtype("int16"), written_dtype("bool", "band"), written_dtype("int16", "band")
    ('<f4', '|u1', '<i2')
    """
    kind = kind_of(dtype, feature_types)
    return np.dtype(dtype).newbyteorder("=").str if kind == "int64" else LIST_DTYPES[kind]


@dataclass(frozen=True, slots=True)
class Feature:
    """One feature of a record.

    Parameters
    ----------
    name : str
        The key of the feature: the name of the band or column.
    kind : {"bytes", "float", "int64"}
        The kind of list that holds the values.
    size : int
        The number of values per record: for a blob (dtype ``"|u1"``), the length in bytes of its only byte
        string; for byte strings (dtype ``"|S0"``), the number of strings.
    dtype : str
        The numpy dtype of the values that are written or read: ``"<f4"`` for float; any integer dtype for
        int64; ``"|u1"`` (blob) or ``"|S0"`` (byte strings) for bytes.
    """

    name: str
    kind: Kind
    size: int
    dtype: str

    @classmethod
    def of(cls, name: str, dtype: npt.DTypeLike, size: int, feature_types: FeatureTypes = "float") -> Feature:
        """Create the feature for a band of the given dtype; see `kind_of`.

        Examples
        --------
        >>> Feature.of("landcover", "int16", 65536, "band")
        Feature(name='landcover', kind='int64', size=65536, dtype='<i2')
        """
        kind = kind_of(dtype, feature_types)
        return cls(check_key(name), kind, size, written_dtype(dtype, feature_types))

    @classmethod
    def stored(cls, name: str, kind: Kind, size: int) -> Feature:
        """Create a feature with the dtype to which lists of a kind are decoded; bytes are a blob.

        Examples
        --------
        >>> Feature.stored("class", "int64", 1)
        Feature(name='class', kind='int64', size=1, dtype='<i8')
        """
        return cls(name, kind, size, LIST_DTYPES[kind])

    @classmethod
    def strings(cls, name: str, size: int = 1) -> Feature:
        """Create a feature of byte strings, which may have any length.

        Examples
        --------
        >>> Feature.strings("site")
        Feature(name='site', kind='bytes', size=1, dtype='|S0')
        """
        return cls(name, "bytes", size, _BYTE_STRINGS)

    @property
    def holds_strings(self) -> bool:
        """Whether the values are byte strings, which may have any length."""
        return self.dtype == _BYTE_STRINGS

    @property
    def fixed_size(self) -> bool:
        """Whether the values have the same length in bytes in every record."""
        return self.kind != "int64" and not self.holds_strings

    @property
    def max_bytes(self) -> int:
        """Length of the values in bytes: for integers the maximum for the dtype, for byte strings 0."""
        if self.holds_strings:
            return 0
        width = {"bytes": 1, "float": 4}.get(self.kind) or varint_bound(self.dtype)
        return width * self.size
