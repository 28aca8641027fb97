"""The wire format of `tf.train.SequenceExample`: one record at a time, and the layout of records.

Everything that a protobuf parser must take is taken, as in `xee_tf.records.wire`.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from xee_tf.errors import RecordError
from xee_tf.records.example import Feature, Kind
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_template import wrap
from xee_tf.records.wire import Values, list_values, parse_features, read_entry, read_fields

__all__ = ["decode_sequence_example", "read_sequence_layout"]


def decode_sequence_example(
    data: bytes | memoryview,
) -> tuple[dict[str, Values], dict[str, list[Values | None]]]:
    """The context and the feature lists of one serialised SequenceExample.

    Parameters
    ----------
    data : bytes-like
        The message, without framing.

    Returns
    -------
    context : dict
        As `decode_example` gives it.
    sequences : dict
        Name to the values of each step; None for a step that holds no list at all.

    Raises
    ------
    RecordError
        If the bytes are not a valid SequenceExample.

    Examples
    --------
    >>> from xee_tf.records import iter_frames
    >>> layout = SequenceLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "i2", 1, "band"),))
    >>> encoded = layout.encode([np.array([0.5], "f4")], [np.array([[7, 8]], "i2")])
    >>> decode_sequence_example(next(iter_frames(encoded.buffer.data)))
    ({'x': array([0.5], dtype=float32)}, {'t': [array([7]), array([8])]})
    """
    view = memoryview(data)
    context = {name: list_values(kind, body) for name, (kind, body) in parse_features(view).items()}
    sequences: dict[str, list[Values | None]] = {}
    for field, wire, body in read_fields(view):
        if field != 2 or wire != 2:
            continue
        for number, wire, entry in read_fields(body):
            if number == 1 and wire == 2:
                name, steps = _list_entry(entry)
                sequences.pop(name, None)
                sequences[name] = steps
    return context, sequences


def _list_entry(data: memoryview) -> tuple[str, list[Values | None]]:
    """Key and steps of one entry of the map of feature lists."""
    name: str = ""
    steps: list[Values | None] = []
    for number, wire, body in read_fields(data):
        # Keys and Features are what the entries of a map of features consist of.
        if number == 1 and wire == 2:
            name = read_entry(memoryview(wrap(0x0A, bytes(body), 0)))[0]
        elif number == 2 and wire == 2:
            for field, wire, feature in read_fields(body):
                if field == 1 and wire == 2:
                    _, kind, values = read_entry(memoryview(wrap(0x12, bytes(feature), 0)))
                    steps.append(None if kind is None else list_values(kind, values))
    return name, steps


def read_sequence_layout(records: Iterable[bytes | memoryview]) -> SequenceLayout:
    """The layout of records, their features in the order of the first one's message.

    Parameters
    ----------
    records : iterable of bytes-like
        Messages without framing. The first one has all features; others are looked at until each
        sequence has shown a step. One that never does is taken for floats, one a step (our choice).

    Raises
    ------
    RecordError
        If a record is not a valid SequenceExample, the first one holds no feature, or there is one that
        is not numbers and not one blob.

    Examples
    --------
    >>> from xee_tf.records import iter_frames
    >>> layout = SequenceLayout((), (Feature.of("ndvi", "f4", 2),))
    >>> ndvi, valid = np.zeros((2, 3, 2), "f4"), np.array([[False] * 3, [True] * 3])
    >>> encoded = layout.encode([], [ndvi], keep_steps=valid)
    >>> read_sequence_layout(iter_frames(encoded.buffer.data)) == layout
    True
    """
    context: dict[str, Feature] = {}
    sequences: dict[str, Feature | None] = {}
    for number, record in enumerate(records):
        scalars, lists = decode_sequence_example(record)
        if number == 0:
            context = {name: _feature(name, values) for name, values in scalars.items()}
            sequences = dict.fromkeys(lists)
        for name, steps in lists.items():
            if steps and name in sequences and sequences[name] is None:
                sequences[name] = _feature(name, steps[0])
        if None not in sequences.values():
            break
    if not context and not sequences:
        raise RecordError("The record holds no feature.")
    silent = {name: feature or Feature(name, "float", 1, "<f4") for name, feature in sequences.items()}
    return SequenceLayout(tuple(context.values()), tuple(silent.values()))


def _feature(name: str, values: Values | None) -> Feature:
    """The feature that holds such values."""
    if isinstance(values, np.ndarray) and values.size:
        kind: Kind = "float" if values.dtype == np.float32 else "int64"
        return Feature(name, kind, values.size, values.dtype.newbyteorder("<").str)
    if isinstance(values, list) and len(values) == 1 and values[0]:
        return Feature(name, "bytes", len(values[0]), "|u1")
    held = "nothing" if values is None or not len(values) else f"{len(values)} byte strings"
    raise RecordError(
        f"Feature {name!r} holds {held}; expected numbers, or one byte string that is not empty."
    )
