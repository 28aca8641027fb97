"""Batches as serialised `tf.train.Example`s, one for each instance, without frames around them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.names import check_key
from xee_tf.records import Feature, FeatureTypes, Ragged, RecordLayout, Values, decode_example, encode_records
from xee_tf.records.feature import STRINGS
from xee_tf.records.framing import FOOTER, HEADER
from xee_tf.records.layout import context_head
from xee_tf.records.tensor_types import STRING, tensor_type
from xee_tf.records.wire import field_size
from xee_tf.remote.payloads.arrays import Arrays
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
    texts = {name for name, array in arrays.items() if tensor_type(array.dtype) is STRING}
    # Numbers come first, then strings.
    ordered = sorted(arrays.items(), key=lambda item: item[0] in texts)
    layout = RecordLayout(tuple(_feature(name, a.dtype, a.shape[1:], feature_types) for name, a in ordered))
    every = np.ones(len(ordered[0][1]), bool)  # lists without a string do not tell how many there are
    encoded = encode_records(layout, [_strings(a) if name in texts else a for name, a in ordered], every)
    view, edges = encoded.buffer.data, encoded.offsets.tolist()
    return [bytes(view[begin + HEADER : end - FOOTER]) for begin, end in pairwise(edges)]


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
    features = [_feature(name, dtype, shape, feature_types) for name, (dtype, shape) in items.items()]
    least = [_entry_size(feature, feature.size, 0) for feature in features]
    most = [_entry_size(feature, feature.max_bytes, string_size) for feature in features]
    return field_size(sum(least)), field_size(sum(most))


def _feature(name: str, dtype: npt.DTypeLike, shape: Sequence[int], feature_types: FeatureTypes) -> Feature:
    size = math.prod(shape)
    if tensor_type(np.dtype(dtype)) is STRING:
        return Feature.strings(check_key(name), size)
    return Feature.of(name, dtype, size, feature_types)


def _strings(array: npt.NDArray[Any]) -> Ragged:
    strings = [as_bytes(value) for value in array.reshape(-1).tolist()]
    sizes = np.array([len(string) for string in strings], np.int64)
    return Ragged.packed(np.frombuffer(b"".join(strings), np.uint8), sizes)


def _entry_size(feature: Feature, numbers: int, string: int) -> int:
    """Bytes of an entry whose integers take so many bytes, or each of whose strings does."""
    payload = numbers if feature.kind == "int64" else feature.max_bytes
    if feature.dtype == STRINGS:
        payload = string if feature.size == 1 else feature.size * field_size(string)
    return len(context_head(feature, payload)) + payload
