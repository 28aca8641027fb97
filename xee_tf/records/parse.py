"""Parse single records as a protobuf parser does: the reference for decoding many records at once.

An Example contains a map of features, ``Example{1: Features{1: entry{1: key, 2: Feature}}}``, and a Feature
holds one list: bytes (field 1), float (2) or int64 (3). A SequenceExample has a map of features as its
context (field 1) and a map of feature lists (field 2), which hold one Feature per step. Everything that a
protobuf parser must accept is accepted: any order of fields, unknown fields, packed and unpacked lists, and
messages that are split into parts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.feature import Feature, Kind
from xee_tf.records.layout import LIST_FIELDS, RecordLayout
from xee_tf.varints import decode_varint_parts, decode_varints
from xee_tf.wire import Merged, bodies, delimited_fields, map_entries, merge, read_fields

__all__ = [
    "Parsed",
    "check_values",
    "decode_example",
    "decode_sequence_example",
    "infer_feature",
    "read_layout",
    "read_sequence_layout",
]

Values = npt.NDArray[np.float32] | npt.NDArray[np.int64] | list[bytes]
"""The values of a feature: float32 or int64 numbers, or byte strings."""

Parsed = tuple[dict[str, Values], dict[str, list[Values | None]]]
"""The context and the feature lists of one record."""

_KINDS = {field: kind for kind, field in LIST_FIELDS.items()}


def decode_example(data: bytes | memoryview) -> dict[str, Values]:
    """Decode the features of a serialized Example, in the order of the message.

    Arrays may be read-only views of `data`. If a name appears more than once, the last feature counts, as in
    every protobuf map. A feature without a list is omitted.

    Examples
    --------
    >>> from xee_tf.records import encode_records, iter_frames
    >>> layout = RecordLayout((Feature.of("B4", "float32", 3),))
    >>> encoded = encode_records(layout, [np.array([[1.5, 2, 3]], "float32")])
    >>> [decode_example(record) for record in iter_frames(encoded.buffer.data)]
    [{'B4': array([1.5, 2. , 3. ], dtype=float32)}]
    """
    features: dict[str, tuple[Kind, memoryview]] = {}
    for name, feature in _entries(data, 1):
        kind, values = _read_list(feature)
        if replaced := features.pop(name, None):
            _decode_list(*replaced)  # a replaced feature must be valid, too
        if kind is not None:
            features[name] = (kind, values)
    return {name: _decode_list(kind, values) for name, (kind, values) in features.items()}


def decode_sequence_example(data: bytes | memoryview) -> Parsed:
    """Decode the context and the feature lists of a serialized SequenceExample; see `decode_example`.

    A step without a list is None.

    Examples
    --------
    >>> from xee_tf.records import encode_records, iter_frames
    >>> layout = RecordLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "i2", 1, "band"),))
    >>> encoded = encode_records(layout, [np.array([0.5], "f4"), np.array([[7, 8]], "i2")])
    >>> decode_sequence_example(next(iter_frames(encoded.buffer.data)))
    ({'x': array([0.5], dtype=float32)}, {'t': [array([7]), array([8])]})
    """
    sequences: dict[str, list[Values | None]] = {}
    for name, feature_list in _entries(data, 2):
        steps: list[Values | None] = []
        for step in bodies(feature_list, 1):
            kind, values = _read_list(step)
            steps.append(None if kind is None else _decode_list(kind, values))
        sequences.pop(name, None)
        sequences[name] = steps
    return decode_example(data), sequences


def read_layout(data: bytes | memoryview) -> RecordLayout:
    """Return the layout of an Example of numbers and blobs, with the features in the order of the message.

    Examples
    --------
    >>> from xee_tf.records import encode_records, iter_frames
    >>> layout = RecordLayout((Feature.of("B4", "uint8", 3, "band"),))
    >>> encoded = encode_records(layout, [np.array([[1, 2, 3]], "uint8")])
    >>> read_layout(next(iter_frames(encoded.buffer.data))) == layout
    True
    """
    features = []
    for name, values in decode_example(data).items():
        feature = infer_feature(name, values)
        if feature.holds_strings:
            raise RecordError(
                f"Feature {name!r} holds {feature.size} byte strings; expected one (the values of a band)."
            )
        features.append(feature)
    if not features:
        raise RecordError("The record has no features.")
    return RecordLayout(tuple(features))


def read_sequence_layout(records: Iterable[bytes | memoryview]) -> RecordLayout:
    """Return the layout of SequenceExamples, with the features in the order of the first message.

    The first record must have all features. Further records are read until every sequence has had a step. A
    sequence without any step is assumed to hold one float per step (not specified by Earth Engine).

    Examples
    --------
    >>> from xee_tf.records import encode_records, iter_frames
    >>> layout = RecordLayout((), (Feature.of("ndvi", "f4", 2),))
    >>> ndvi, valid = np.zeros((2, 3, 2), "f4"), np.array([[False] * 3, [True] * 3])
    >>> encoded = encode_records(layout, [ndvi], keep_steps=[valid])
    >>> read_sequence_layout(iter_frames(encoded.buffer.data)) == layout
    True
    """
    context: dict[str, Feature] = {}
    sequences: dict[str, Feature | None] = {}
    for number, record in enumerate(records):
        scalars, lists = decode_sequence_example(record)
        if number == 0:
            context = {name: _require_values(name, values) for name, values in scalars.items()}
            sequences = dict.fromkeys(lists)
        for name, steps in lists.items():
            if steps and name in sequences and sequences[name] is None:
                sequences[name] = _require_values(name, steps[0])
        if None not in sequences.values():
            break
    if not context and not sequences:
        raise RecordError("The record has no features.")
    feature_lists = (feature or Feature.stored(name, "float", 1) for name, feature in sequences.items())
    return RecordLayout(tuple(context.values()), tuple(feature_lists))


def infer_feature(name: str, values: Values, *, blobs: bool = True) -> Feature:
    """Return the feature for decoded values; a single byte string is a blob, unless `blobs` is False.

    Examples
    --------
    >>> infer_feature("B4", np.zeros(3, "f4"))
    Feature(name='B4', kind='float', size=3, dtype='<f4')
    >>> infer_feature("site", [b"oak"]).size, infer_feature("site", [b"oak"], blobs=False).size
    (3, 1)
    """
    if isinstance(values, list):
        if blobs and len(values) == 1:
            return Feature.stored(name, "bytes", len(values[0]))
        return Feature.strings(name, len(values))
    return Feature.stored(name, "float" if values.dtype == np.float32 else "int64", values.size)


def check_values(feature: Feature, found: Values | None, where: str) -> None:
    """Raise an error if the kind or the number of values does not match a feature.

    `where` describes the values in the error message.
    """
    if found is None:
        raise RecordError(f"{where} holds no list; expected a list of kind {feature.kind}.")
    actual = infer_feature(feature.name, found)
    if actual.kind != feature.kind:
        raise RecordError(f"{where} is a list of kind {actual.kind}; expected {feature.kind}.")
    if actual.holds_strings:
        raise RecordError(f"{where} holds {actual.size} byte strings; expected 1.")
    if actual.size != feature.size:
        raise RecordError(f"{where} holds {_count(actual.size)}; expected {feature.size}.")


def _count(values: int) -> str:
    return "1 value" if values == 1 else f"{values} values"


def _require_values(name: str, values: Values | None) -> Feature:
    """Return the feature for decoded values; raise an error if there are no numbers and no blob."""
    feature = None if values is None else infer_feature(name, values)
    if feature is not None and feature.size and not feature.holds_strings:
        return feature
    found = "no values" if values is None or not len(values) else f"{len(values)} byte strings"
    if isinstance(values, list) and len(values) == 1:
        found = "an empty byte string"
    raise RecordError(f"Feature {name!r} holds {found}; expected numbers, or one byte string with values.")


def _entries(data: bytes | memoryview, part: int) -> Iterator[tuple[str, memoryview]]:
    """Yield the names and values of the map in field `part` of a message."""
    for entries in bodies(data, part):
        yield from map_entries(entries, 1, "The name of a feature")


def _read_list(feature: memoryview) -> tuple[Kind | None, memoryview]:
    """Return the kind and the encoded list of a Feature.

    If a Feature has several lists, the last kind counts; lists of that kind are merged.
    """
    kind: Kind | None = None
    values: Merged = memoryview(b"")
    for number, part in delimited_fields(feature):
        if number not in _KINDS:
            continue
        if kind is not None:  # merged and replaced lists must be valid, too
            if isinstance(values, memoryview):
                _decode_list(kind, values)
            _decode_list(_KINDS[number], part)
        values = merge(values, part) if kind == _KINDS[number] else part
        kind = _KINDS[number]
    return kind, memoryview(values)


def _decode_list(kind: Kind, data: memoryview) -> Values:
    """Decode the values of a list message, packed or not."""
    raw = np.frombuffer(data, np.uint8)
    if kind == "float":
        # Fast path for unpacked lists, in which a tag precedes each value.
        if raw.size and raw.size % 5 == 0 and (raw[::5] == 0x0D).all():
            return np.ascontiguousarray(raw.reshape(-1, 5)[:, 1:]).view("<f4")[:, 0]
        packed: Merged = memoryview(b"")
        for part in _parts(data, scalar=5, width=4):
            packed = merge(packed, part)
        return np.frombuffer(packed, "<f4")
    if kind == "int64":
        if raw.size and raw[0] == 0x08 and raw[-1] < 0x80:
            numbers = decode_varints(raw)
            if numbers.size % 2 == 0 and (numbers[::2] == 8).all():
                return numbers[1::2]
        return decode_varint_parts(_parts(data, scalar=0, width=1))
    return [bytes(part) for part in _parts(data, scalar=-1, width=1)]


def _parts(data: memoryview, scalar: int, width: int) -> Iterator[memoryview]:
    """Yield the parts of a list: packed values, or single values of wire type `scalar`."""
    for number, wire, part in read_fields(data):
        if number == 1 and wire in (2, scalar):
            if len(part) % width:
                raise RecordError(f"A packed list has {len(part)} bytes; expected a multiple of {width}.")
            yield part
