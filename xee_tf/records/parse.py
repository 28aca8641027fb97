"""One record at a time, as a protobuf parser reads it: the reference for what many records are read as.

An Example is a message in a message in a map: ``Example{1: Features{1: entry{1: key, 2: Feature}}}``, and a
Feature holds one list: bytes (field 1), float (2) or int64 (3). A SequenceExample has a map of features as
its context (field 1) and a map of feature lists (field 2), which hold a Feature for each step. Everything
that a protobuf parser must take is taken: any order of fields, unknown ones, packed and unpacked lists, parts
to be merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.feature import STRINGS, Feature, Kind
from xee_tf.records.layout import LISTS, RecordLayout
from xee_tf.varints import decode_varint_parts, decode_varints
from xee_tf.wire import bodies, delimited_fields, map_entries, read_fields

__all__ = [
    "Parsed",
    "Values",
    "check_values",
    "decode_example",
    "decode_sequence_example",
    "feature_of",
    "read_layout",
    "read_sequence_layout",
]

Values = npt.NDArray[np.float32] | npt.NDArray[np.int64] | list[bytes]
"""What a feature holds: float32 or int64 numbers, or byte strings."""

Parsed = tuple[dict[str, Values], dict[str, list[Values | None]]]
"""The context and the feature lists of one record."""

_KINDS = {field: kind for kind, field in LISTS.items()}


def decode_example(data: bytes | memoryview) -> dict[str, Values]:
    """The features of one serialised Example, in the order of the message.

    Arrays may be read-only views of `data`. Of a name that comes twice the last one counts, as in every
    protobuf map; a feature that holds no list at all is left out.

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
        kind, values = _list_of(feature)
        if replaced := features.pop(name, None):
            _values(*replaced)  # what is replaced must be valid too
        if kind is not None:
            features[name] = (kind, values)
    return {name: _values(kind, values) for name, (kind, values) in features.items()}


def decode_sequence_example(data: bytes | memoryview) -> Parsed:
    """The context and the feature lists of one serialised SequenceExample; see `decode_example`.

    A step that holds no list at all is None.

    Examples
    --------
    >>> from xee_tf.records import encode_records, iter_frames
    >>> layout = RecordLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "i2", 1, "band"),))
    >>> encoded = encode_records(layout, [np.array([0.5], "f4"), np.array([[7, 8]], "i2")])
    >>> decode_sequence_example(next(iter_frames(encoded.buffer.data)))
    ({'x': array([0.5], dtype=float32)}, {'t': [array([7]), array([8])]})
    """
    sequences: dict[str, list[Values | None]] = {}
    for name, steps_of in _entries(data, 2):
        steps: list[Values | None] = []
        for step in bodies(steps_of, 1):
            kind, values = _list_of(step)
            steps.append(None if kind is None else _values(kind, values))
        sequences.pop(name, None)
        sequences[name] = steps
    return decode_example(data), sequences


def read_layout(data: bytes | memoryview) -> RecordLayout:
    """The layout of one Example: features of numbers, or of one blob each, in the order of the message.

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
        feature = feature_of(name, values)
        if feature.dtype == STRINGS:
            raise RecordError(f"Feature {name!r} holds {feature.size} byte strings; a band is one blob.")
        features.append(feature)
    if not features:
        raise RecordError("The record holds no feature.")
    return RecordLayout(tuple(features))


def read_sequence_layout(records: Iterable[bytes | memoryview]) -> RecordLayout:
    """The layout of SequenceExamples, their features in the order of the first one's message.

    The first record has all features; others are looked at until each sequence has shown a step. One that
    never does is taken for floats, one a step (our choice).

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
            context = {name: _filled(name, values) for name, values in scalars.items()}
            sequences = dict.fromkeys(lists)
        for name, steps in lists.items():
            if steps and name in sequences and sequences[name] is None:
                sequences[name] = _filled(name, steps[0])
        if None not in sequences.values():
            break
    if not context and not sequences:
        raise RecordError("The record holds no feature.")
    lists_of = (feature or Feature.stored(name, "float", 1) for name, feature in sequences.items())
    return RecordLayout(tuple(context.values()), tuple(lists_of))


def feature_of(name: str, values: Values, *, blobs: bool = True) -> Feature:
    """The feature that holds such values; a single byte string is a blob, unless `blobs` is False.

    Examples
    --------
    >>> feature_of("B4", np.zeros(3, "f4"))
    Feature(name='B4', kind='float', size=3, dtype='<f4')
    >>> feature_of("site", [b"oak"]).size, feature_of("site", [b"oak"], blobs=False).size
    (3, 1)
    """
    if isinstance(values, list):
        if blobs and len(values) == 1:
            return Feature.stored(name, "bytes", len(values[0]))
        return Feature.strings(name, len(values))
    return Feature.stored(name, "float" if values.dtype == np.float32 else "int64", values.size)


def check_values(feature: Feature, found: Values | None, where: str) -> None:
    """Refuse values of another kind or number than a feature has; `where` names them in the error."""
    if found is None:
        raise RecordError(f"{where} holds no list.")
    held = feature_of(feature.name, found)
    if held.kind != feature.kind:
        raise RecordError(f"{where} is a {held.kind} list; expected {feature.kind}.")
    if held.dtype == STRINGS:
        raise RecordError(f"{where} holds {held.size} byte strings; expected one.")
    if held.size != feature.size:
        raise RecordError(f"{where} holds {held.size} values; expected {feature.size}.")


def _filled(name: str, values: Values | None) -> Feature:
    """The feature of values of which there is at least one."""
    feature = None if values is None else feature_of(name, values)
    if feature is not None and feature.size and feature.dtype != STRINGS:
        return feature
    held = "nothing" if values is None or not len(values) else f"{len(values)} byte strings"
    raise RecordError(
        f"Feature {name!r} holds {held}; expected numbers, or one byte string that is not empty."
    )


def _entries(data: bytes | memoryview, part: int) -> Iterator[tuple[str, memoryview]]:
    """Names and values of the map in field `part` of a message."""
    for entries in bodies(data, part):
        yield from map_entries(entries, 1, "The name of a feature")


def _list_of(feature: memoryview) -> tuple[Kind | None, memoryview]:
    """Kind and undecoded list of a Feature; the last one counts, merged with others of its kind."""
    kind: Kind | None = None
    values = memoryview(b"")
    for number, part in delimited_fields(feature):
        if number not in _KINDS:
            continue
        if kind is not None:
            _values(kind, values)  # what is merged or replaced must be valid too
        if kind == _KINDS[number]:
            _values(kind, part)
            part = memoryview(bytes(values) + bytes(part))
        kind, values = _KINDS[number], part
    return kind, values


def _values(kind: Kind, data: memoryview) -> Values:
    """The values of a list message, packed or not."""
    raw = np.frombuffer(data, np.uint8)
    if kind == "float":
        # Lists that are not packed have a tag in front of each value; those of one form are common.
        if raw.size and raw.size % 5 == 0 and (raw[::5] == 0x0D).all():
            return np.ascontiguousarray(raw.reshape(-1, 5)[:, 1:]).view("<f4")[:, 0]
        floats = [np.frombuffer(part, "<f4") for part in _parts(data, scalar=5, width=4)]
        return floats[0] if len(floats) == 1 else np.concatenate([np.empty(0, np.float32), *floats])
    if kind == "int64":
        if raw.size and raw[0] == 0x08 and raw[-1] < 0x80:
            numbers = decode_varints(raw)
            if numbers.size % 2 == 0 and (numbers[::2] == 8).all():
                return numbers[1::2]
        return decode_varint_parts(_parts(data, scalar=0, width=1))
    return [bytes(part) for part in _parts(data, scalar=-1, width=1)]


def _parts(data: memoryview, scalar: int, width: int) -> Iterator[memoryview]:
    """The values of a list's only field, as they come: packed runs, or single ones of wire type `scalar`."""
    for number, wire, part in read_fields(data):
        if number == 1 and wire in (2, scalar):
            if len(part) % width:
                raise RecordError(f"A packed list of {len(part)} bytes does not hold whole numbers.")
            yield part
