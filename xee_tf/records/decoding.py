"""Reading `tf.train.Example` records into numpy arrays: one by one, or many at a time.

`decode_example` takes whatever a protobuf writer may send: packed and unpacked lists, features in
any order, unknown fields. `decode_frames` reads runs of records: those whose constant bytes equal
their layout's are not parsed at all, their values are strided views of the buffer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import RecordError
from xee_tf.records.crc import record_crcs
from xee_tf.records.example import Feature, Kind, RecordLayout
from xee_tf.records.framing import FOOTER, FRAMING, HEADER, check_data, mask_crcs, read_length
from xee_tf.records.wire import Values, conform, list_values, parse_features

__all__ = [
    "Batch",
    "count_right",
    "decode_example",
    "decode_frames",
    "longest_run",
    "read_layout",
    "verify_block",
]

_MAX_ORDERS = 8  # orders of features that are remembered: protobuf maps have none of their own


def decode_example(data: bytes | memoryview) -> dict[str, Values]:
    """The features of one serialised Example.

    Parameters
    ----------
    data : bytes-like
        The message, without framing.

    Returns
    -------
    dict
        Name to a float32 array, an int64 array, or a list of bytes, in the order of the message.
        Arrays may be read-only views of `data`. Of a name that comes twice the last one counts, as in
        every protobuf map; a feature that holds no list at all is left out.

    Raises
    ------
    RecordError
        If the bytes are not a valid Example.

    Examples
    --------
    >>> from xee_tf.records import Feature, RecordLayout, iter_frames
    >>> layout = RecordLayout((Feature.of("B4", "float32", 3),))
    >>> encoded = layout.encode([np.array([[1.5, 2, 3]], "float32")])
    >>> [decode_example(record) for record in iter_frames(encoded.buffer.data)]
    [{'B4': array([1.5, 2. , 3. ], dtype=float32)}]
    """
    return {name: list_values(kind, body) for name, (kind, body) in parse_features(memoryview(data)).items()}


def read_layout(data: bytes | memoryview) -> RecordLayout:
    """The layout of one record, its features in the order of the message.

    Parameters
    ----------
    data : bytes-like
        The message, without framing.

    Raises
    ------
    RecordError
        If it is not a valid Example, holds no feature, or one that is not numbers and not one blob.

    Examples
    --------
    >>> from xee_tf.records import iter_frames
    >>> layout = RecordLayout((Feature.of("B4", "uint8", 3, "band"),))
    >>> encoded = layout.encode([np.array([[1, 2, 3]], "uint8")])
    >>> read_layout(next(iter_frames(encoded.buffer.data))) == layout
    True
    """
    features = []
    for name, values in decode_example(data).items():
        if isinstance(values, np.ndarray):
            kind: Kind = "float" if values.dtype == np.float32 else "int64"
            features.append(Feature(name, kind, values.size, values.dtype.newbyteorder("<").str))
        elif len(values) == 1:
            features.append(Feature(name, "bytes", len(values[0]), "|u1"))
        else:
            raise RecordError(f"Feature {name!r} holds {len(values)} byte strings; a band is one blob.")
    if not features:
        raise RecordError("The record holds no feature.")
    return RecordLayout(tuple(features))


@dataclass(frozen=True, slots=True)
class Batch:
    """The values of consecutive records.

    Parameters
    ----------
    first, count : int
        Number of the first record in its buffer, and how many there are.
    values : dict of str to ndarray, shape (count, size)
        Values of each feature: float32, int64 or uint8; read-only views wherever possible.
    """

    first: int
    count: int
    values: dict[str, npt.NDArray[Any]]


def decode_frames(
    buffer: bytes | memoryview,
    layout: RecordLayout,
    *,
    orders: Sequence[RecordLayout] = (),
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> Iterator[Batch]:
    """The values of framed records that hold the features of `layout`.

    Parameters
    ----------
    buffer : bytes-like
        Whole framed records.
    layout : RecordLayout
        Features that every record must have, in any order and among others.
    orders : sequence of RecordLayout, optional
        Layouts, all features included, that records are likely to have: it spares looking.
    source : str, optional
        Name of the file, for errors.
    first : int, optional
        Number of the first record in its file, for errors.
    verify : bool, optional
        Whether the CRC of every record's data is checked (those of lengths always are).

    Raises
    ------
    RecordError
        If a record is truncated or corrupt, lacks a feature, or has one of another kind or size.

    Examples
    --------
    >>> layout = RecordLayout((Feature.of("B4", "float32", 2),))
    >>> encoded = layout.encode([np.arange(6, dtype="float32").reshape(3, 2)])
    >>> [batch] = decode_frames(encoded.buffer.data, layout)
    >>> batch.values["B4"].tolist()
    [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """
    view = memoryview(buffer).cast("B")
    raw = np.frombuffer(view, np.uint8)
    known = [order for order in (*orders, layout) if order.exact]
    position = record = 0
    reach = 16  # records looked at ahead: more while they keep to one order
    while position < len(view):
        order, count = longest_run(raw[position:], known, reach)
        if order:
            block = raw[position : position + count * order.framed_size].reshape(count, -1)
            if verify:
                verify_block(block, first + record, source)
            yield Batch(record, count, _columns(block, order, layout))
            position += block.size
            reach = reach * 2 if count == reach else 16
        else:
            length = read_length(view, position, first + record, source)
            data = check_data(view, position, length, first + record, source, verify=verify)
            try:
                features = parse_features(data)
                values = {feature.name: _conform(feature, features) for feature in layout.features}
                learned = read_layout(data) if len(known) < _MAX_ORDERS and layout.exact else None
            except RecordError as error:
                raise RecordError(f"{source}: record {first + record}: {error}") from None
            count = 1
            if learned and learned.exact and longest_run(raw[position:], [learned], 1)[0]:
                known.append(learned)
                continue  # this record and those like it are read together
            yield Batch(record, 1, values)
            position += length + FRAMING
        record += count


def longest_run(
    raw: npt.NDArray[np.uint8], orders: list[RecordLayout], reach: int
) -> tuple[RecordLayout | None, int]:
    """The first of `orders` that the next record has, and how many records on have it too."""
    for order in orders:
        count = min(reach, raw.size // order.framed_size)
        block = raw[: count * order.framed_size].reshape(count, order.framed_size)
        for segment in order.segments:
            expected = np.frombuffer(segment.data, np.uint8)
            equal = (block[:, segment.offset : segment.end] == expected).all(axis=1)
            if not equal.all():
                block = block[: int(equal.argmin())]
        if len(block):
            return order, len(block)
    return None, 0


def verify_block(block: npt.NDArray[np.uint8], first: int, source: str) -> None:
    """Check the CRCs of the data of records that are the rows of a matrix."""
    right = count_right(block)
    if right < len(block):
        raise RecordError(
            f"{source}: record {first + right} is corrupt: the checksum of its data does not match."
        )


def count_right(block: npt.NDArray[np.uint8]) -> int:
    """How many records, the rows of a matrix, come before the first one whose data have another CRC."""
    size = block.shape[1]
    crcs = mask_crcs(record_crcs(block[:, HEADER : size - FOOTER]))
    stored = np.ascontiguousarray(block[:, size - FOOTER :]).view("<u4")[:, 0]
    wrong = np.flatnonzero(crcs != stored)
    return int(wrong[0]) if wrong.size else len(block)


def _columns(
    block: npt.NDArray[np.uint8], order: RecordLayout, wanted: RecordLayout
) -> dict[str, npt.NDArray[Any]]:
    """The values of each wanted feature of records that are the rows of a matrix, as views."""
    places = {f.name: (f, segment.end) for f, segment in zip(order.features, order.segments, strict=True)}
    columns = {}
    for wish in wanted.features:
        feature, begin = places[wish.name]
        columns[wish.name] = block[:, begin : begin + feature.max_bytes].view(feature.dtype)
    return columns


def _conform(feature: Feature, found: dict[str, tuple[Kind, memoryview]]) -> npt.NDArray[Any]:
    """The values of a feature of one record, shape (1, size), if they are what they must be."""
    if feature.name not in found:
        raise RecordError(f"there is no feature {feature.name!r}, only {', '.join(map(repr, found))}.")
    return conform(feature, list_values(*found[feature.name]), f"feature {feature.name!r}")
