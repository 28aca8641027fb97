"""Batches as serialised `tf.train.Example`s, one for each instance, without frames around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays
from xee_tf.errors import RecordError
from xee_tf.names import check_key
from xee_tf.records.decoding import decode_example
from xee_tf.records.example import Feature, FeatureTypes, RecordLayout
from xee_tf.records.framing import FOOTER, HEADER
from xee_tf.records.tensor_types import STRING, tensor_type
from xee_tf.records.varint import encode_varint, read_varint, varint_size
from xee_tf.records.wire import Values
from xee_tf.remote.payloads.strings import as_bytes

__all__ = ["EXAMPLES_INPUT", "example_bounds", "parse_examples", "serialise_examples"]

EXAMPLES_INPUT = "input"
"""The only input of a model that takes Examples, as Earth Engine's guide names it."""


def serialise_examples(arrays: Arrays, feature_types: FeatureTypes = "float") -> list[bytes]:
    """An Example for each instance: a feature for each array, its values in C order.

    Parameters
    ----------
    arrays : mapping from str to ndarray, shape (n, ...)
        Numbers or strings.
    feature_types : {"float", "band"}, optional
        As in exports: all numbers as float_list, or by their dtype.

    Examples
    --------
    >>> [example] = serialise_examples({"B4": np.array([[0.5, 2]]), "class": np.array(["oak"])})
    >>> decode_example(example)
    {'B4': array([0.5, 2. ], dtype=float32), 'class': [b'oak']}
    """
    entries = [b""] * len(next(iter(arrays.values())))
    numbers = {name: array for name, array in arrays.items() if tensor_type(array.dtype) is not STRING}
    if numbers:
        layout = RecordLayout(tuple(_feature(name, array, feature_types) for name, array in numbers.items()))
        columns = [
            np.ascontiguousarray(array.view(np.uint8) if array.dtype == bool else array)
            for array in numbers.values()
        ]
        columns = [
            column.astype(feature.dtype) if feature.kind == "float" else column
            for feature, column in zip(layout.features, columns, strict=True)
        ]
        encoded = layout.encode(columns)
        view, edges = encoded.buffer.data, encoded.offsets.tolist()
        for place, (begin, end) in enumerate(pairwise(edges)):
            message = view[begin + HEADER : end - FOOTER]  # tag and length of the features, the features
            entries[place] = bytes(message[read_varint(message, 1)[1] :])
    for name, array in arrays.items():
        if name not in numbers:
            for place, row in enumerate(array.reshape(len(array), math.prod(array.shape[1:])).tolist()):
                entries[place] += _string_entry(name, [as_bytes(value) for value in row])
    return [b"\x0a" + encode_varint(len(features)) + features for features in entries]


def parse_examples(examples: Sequence[bytes]) -> dict[str, npt.NDArray[Any]]:
    """The features of Examples that all have the same ones, each as an array (n, values).

    Raises
    ------
    RecordError
        If one is no Example, or they differ in names, kinds or numbers of values.

    Examples
    --------
    >>> parse_examples(serialise_examples({"B4": np.array([1, 2])}))
    {'B4': array([[1.], [2.]], dtype=float32)}
    """
    rows = [decode_example(example) for example in examples]
    arrays: dict[str, npt.NDArray[Any]] = {}
    for name in rows[0] if rows else ():
        values = [row.get(name) for row in rows]
        if len(set(map(_form, values))) > 1 or any(len(row) != len(rows[0]) for row in rows):
            raise RecordError(f"The Examples differ in the feature {name!r}, or in their number of features.")
        arrays[name] = np.array(values, object if isinstance(values[0], list) else None)
    return arrays


def _form(values: Values | None) -> tuple[str, int]:
    """Kind and number of the values of a feature."""
    if values is None:
        return "missing", 0
    return "bytes" if isinstance(values, list) else values.dtype.name, len(values)


def example_bounds(
    items: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]],
    feature_types: FeatureTypes = "float",
    string_size: int = 0,
) -> tuple[int, int]:
    """Bytes that a serialised Example takes at least and at most.

    Parameters
    ----------
    items : mapping
        Dtype and shape of what an instance has under each name.
    feature_types : {"float", "band"}, optional
        As in `serialise_examples`.
    string_size : int, optional
        Bytes of the longest string.

    Examples
    --------
    >>> example_bounds({"B4": ("float32", (256, 256, 1))})
    (262168, 262168)
    """
    totals = [0, 0]
    for name, (dtype, shape) in items.items():
        count = math.prod(shape)
        if tensor_type(np.dtype(dtype)) is STRING:
            lists = [count * (1 + varint_size(size) + size) for size in (0, string_size)]
        else:
            feature = Feature.of(name, dtype, count, feature_types)
            least = feature.size if feature.kind == "int64" else feature.max_bytes
            lists = [1 + varint_size(size) + size if size else 0 for size in (least, feature.max_bytes)]
        for place, size in enumerate(lists):
            key = len(name.encode())
            entry = _field_size(key) + _field_size(_field_size(size))
            totals[place] += _field_size(entry)
    return _field_size(totals[0]), _field_size(totals[1])


def _feature(name: str, array: npt.NDArray[Any], feature_types: FeatureTypes) -> Feature:
    return Feature.of(name, array.dtype, math.prod(array.shape[1:]), feature_types)


def _field_size(size: int) -> int:
    """Bytes of a field whose body has `size` bytes."""
    return 1 + varint_size(size) + size


def _string_entry(name: str, strings: Sequence[bytes]) -> bytes:
    """An entry of the map of features, its values byte strings."""
    values = b"".join(_field(0x0A, string) for string in strings)
    return _field(0x0A, _field(0x0A, check_key(name).encode()) + _field(0x12, _field(0x0A, values)))


def _field(tag: int, body: bytes) -> bytes:
    return bytes((tag,)) + encode_varint(len(body)) + body
