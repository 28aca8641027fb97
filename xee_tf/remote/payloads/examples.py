"""Batches as serialised `tf.train.Example`s, one for each instance, without frames around them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Items
from xee_tf.names import check_key
from xee_tf.records import Feature, Ragged, RecordLayout, encode_records
from xee_tf.records.feature import STRINGS
from xee_tf.records.framing import FOOTER, HEADER
from xee_tf.records.layout import context_head
from xee_tf.records.tensor_types import STRING, tensor_type
from xee_tf.records.wire import field_size
from xee_tf.remote.payloads.strings import as_bytes

__all__ = ["EXAMPLES_INPUT", "least_example_size", "serialise_examples"]

EXAMPLES_INPUT = "input"
"""The only input of a model that takes Examples, as Earth Engine's guide names it."""


def serialise_examples(arrays: Arrays) -> list[bytes]:
    """An Example for each instance: a feature for each array, its values in C order.

    Numbers are float_list, whatever their dtype.

    Parameters
    ----------
    arrays : mapping from str to ndarray, shape (n, ...)
        Numbers or strings.

    Examples
    --------
    >>> from xee_tf.records import decode_example
    >>> [example] = serialise_examples({"B4": np.array([[0.5, 2]]), "class": np.array(["oak"])})
    >>> decode_example(example)
    {'B4': array([0.5, 2. ], dtype=float32), 'class': [b'oak']}
    """
    texts = {name for name, array in arrays.items() if tensor_type(array.dtype) is STRING}
    # Numbers come first, then strings.
    ordered = sorted(arrays.items(), key=lambda item: item[0] in texts)
    layout = RecordLayout(tuple(_feature(name, array.dtype, array.shape[1:]) for name, array in ordered))
    columns = [_strings(array) if name in texts else array for name, array in ordered]
    # Features of no strings do not show how many records there are.
    every = np.ones(len(ordered[0][1]), bool)
    encoded = encode_records(layout, columns, every)
    view, edges = encoded.buffer.data, encoded.offsets.tolist()
    return [bytes(view[begin + HEADER : end - FOOTER]) for begin, end in pairwise(edges)]


def least_example_size(items: Items) -> int:
    """Bytes that a serialised Example takes at least: exactly, unless there are strings.

    Parameters
    ----------
    items : mapping
        Dtype and shape of what an instance has under each name.

    Examples
    --------
    >>> least_example_size({"B4": ("float32", (256, 256, 1))})
    262168
    """
    features = [_feature(name, dtype, shape) for name, (dtype, shape) in items.items()]
    return field_size(sum(map(_least_entry_size, features)))


def _feature(name: str, dtype: npt.DTypeLike, shape: Sequence[int]) -> Feature:
    size = math.prod(shape)
    if tensor_type(np.dtype(dtype)) is STRING:
        return Feature.strings(check_key(name), size)
    return Feature.of(name, dtype, size)


def _strings(array: npt.NDArray[Any]) -> Ragged:
    strings = [as_bytes(value) for value in array.reshape(-1).tolist()]
    sizes = np.array([len(string) for string in strings], np.int64)
    return Ragged.packed(np.frombuffer(b"".join(strings), np.uint8), sizes)


def _least_entry_size(feature: Feature) -> int:
    values = feature.max_bytes
    if feature.dtype == STRINGS:  # of empty strings; the head of a single one holds its tag and length
        values = 0 if feature.size == 1 else feature.size * field_size(0)
    return len(context_head(feature, values)) + values
