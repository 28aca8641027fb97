"""Decode framed Examples and SequenceExamples to numpy arrays, a whole buffer at a time.

If all records differ from the first one only in their values, they are not parsed (`xee_tf.records.uniform`):
their constant bytes are compared with a template, and the values are strided views of the buffer. Other
records (`xee_tf.records.varied`) are decoded in parallel (`xee_tf.records.walk`), or one by one if they have
unknown fields or unpacked lists (`xee_tf.records.parse`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.display import quoted
from xee_tf.errors import RecordError
from xee_tf.records.feature import LIST_DTYPES, Feature
from xee_tf.records.frames import Frames
from xee_tf.records.layout import RecordLayout
from xee_tf.records.parse import Parsed, check_values, decode_example, decode_sequence_example
from xee_tf.records.ragged import Ragged, join
from xee_tf.records.uniform import find_template, read_uniform
from xee_tf.records.varied import read_varied
from xee_tf.records.walk import FeatureValues, Order, Selection, by_name

__all__ = ["decode_features", "decode_records"]


@dataclass(frozen=True, slots=True)
class Records:
    """The values of consecutive records.

    Parameters
    ----------
    count : int
        The number of records.
    context : dict of str to ndarray, shape (count, size)
        The features of the context as float32, int64 or uint8; read-only views if possible.
    sequences : dict of str to ndarray, shape (count, steps, size)
        The feature lists, padded after the last step of each record; read-only views if possible.
    lengths : dict of str to ndarray of int64, shape (count,)
        The number of steps of each record.
    """

    count: int
    context: dict[str, npt.NDArray[Any]]
    sequences: dict[str, npt.NDArray[Any]]
    lengths: dict[str, npt.NDArray[np.int64]]


def decode_records(
    buffer: bytes | memoryview,
    layout: RecordLayout,
    *,
    orders: Sequence[RecordLayout] = (),
    steps: Mapping[str, int] | None = None,
    fill: Mapping[str, float] | None = None,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> Records:
    """Decode framed records that hold the features of `layout`.

    Parameters
    ----------
    buffer : bytes-like
        Complete framed records.
    layout : RecordLayout
        The features that every record must have, in any order. Records may have further features.
    orders : sequence of RecordLayout, optional
        The complete layouts that records probably have. They speed up decoding.
    steps : mapping of str to int, optional
        The number of steps in the array of each sequence. Default: the maximum of all records.
    fill : mapping of str to float, optional
        The value after the last step of a record with fewer steps. It must fit the dtype. Default: 0.
    source : str, optional
        The name of the file, for error messages.
    first : int, default 0
        The index of the first record in its file, for error messages.
    verify : bool, default True
        Whether to check the CRC of the data of every record. The CRCs of lengths are always checked.

    Returns
    -------
    Records
        The decoded values.

    Raises
    ------
    RecordError
        If a record is truncated or corrupt, lacks a feature, has a feature of another kind or size, or has
        more steps than `steps`.

    Examples
    --------
    >>> from xee_tf.records import encode_records
    >>> layout = RecordLayout((Feature.of("x", "f4", 1),), (Feature.of("t", "f4", 1),))
    >>> arrays = [np.array([1, 2], "f4"), np.array([[3, 4, 5], [6, 7, 8]], "f4")]
    >>> valid = np.array([[True, True, True], [False, True, False]])
    >>> found = decode_records(encode_records(layout, arrays, keep_steps=[valid]).buffer.data, layout)
    >>> found.sequences["t"][:, :, 0].tolist(), found.lengths["t"].tolist()
    ([[3.0, 4.0, 5.0], [7.0, 0.0, 0.0]], [3, 1])
    """
    parse_record = partial(_parse, sequences=layout.sequences is not None)
    frames = Frames.of(buffer, source, first, parse_record, blobs=True)
    known = list(dict.fromkeys(_order(each) for each in (*orders, layout)))
    sequences = layout.sequences or ()
    selection = Selection(_names(layout.context), _names(sequences), ignore_others=True)
    parts = _decode(frames, known, selection, verify, fixed_size=layout.fixed_size)
    named = by_name(parts)
    scalars = [_matching_parts(named, feature, in_sequence=False) for feature in layout.context]
    lists = [_matching_parts(named, feature, in_sequence=True) for feature in sequences]
    _check_complete(frames, layout, [*scalars, *lists])
    context = {
        feature.name: _merge_context(feature, matching, frames.count)
        for feature, matching in zip(layout.context, scalars, strict=True)
    }
    lengths = {
        feature.name: _lengths(matching, frames.count)
        for feature, matching in zip(sequences, lists, strict=True)
    }
    depths = _depths(lengths, steps or {}, frames)
    fills = fill or {}
    series = {
        feature.name: _merge_steps(
            feature, matching, frames.count, depths[feature.name], fills.get(feature.name, 0)
        )
        for feature, matching in zip(sequences, lists, strict=True)
    }
    return Records(frames.count, context, series, lengths)


def decode_features(
    buffer: bytes | memoryview,
    orders: list[Order],
    selected: Collection[str] | None = None,
    *,
    source: str = "TFRecord",
    first: int = 0,
    verify: bool = True,
) -> list[FeatureValues]:
    """Decode the features of framed Examples without a given layout.

    `orders` are the orders of features that are known from other buffers of the file; records may lack some
    of the features, and new orders are added to the list. Values are copies, and are decoded only for the
    `selected` features. A single byte string is decoded as a string. Record indices start at `first`.
    SequenceExamples raise an error. For the other parameters see `decode_records`.

    Examples
    --------
    >>> from xee_tf.records import encode_records
    >>> layout = RecordLayout((Feature.of("B4", "f4", 1),))
    >>> encoded = encode_records(layout, [np.array([0.25, 0.5], "f4")])
    >>> [part] = decode_features(encoded.buffer.data, [])
    >>> part.feature.name, part.records.tolist(), part.values.tolist()
    ('B4', [0, 1], [[0.25], [0.5]])
    """
    frames = Frames.of(buffer, source, first, _parse_row, blobs=False)
    parts = _decode(frames, orders, Selection(selected), verify)
    return [
        FeatureValues(
            part.feature, part.index, part.records + first, _copy(part.values, part.feature.name, selected)
        )
        for part in parts
    ]


def _decode(
    frames: Frames, orders: list[Order], selection: Selection, verify: bool, *, fixed_size: bool = True
) -> list[FeatureValues]:
    """Decode the features of records; unless features have a `fixed_size`, records are not uniform."""
    template = find_template(frames, orders) if fixed_size else None
    if verify:
        frames.verify(None if template is None else template.varying)
    if template is None:
        return read_varied(frames, orders, selection)
    return read_uniform(frames, template)


def _copy(values: Any, name: str, selected: Collection[str] | None) -> Any:
    """Copy the values of a selected feature: views would keep the whole buffer alive."""
    if values is None or (selected is not None and name not in selected):
        return None
    return join([values]) if isinstance(values, Ragged) else values.copy()


# -- Single records ----------------------------------------------------------------------------------


def _parse(data: memoryview, where: str, *, sequences: bool = False) -> Parsed:
    try:
        return decode_sequence_example(data) if sequences else (decode_example(data), {})
    except RecordError as error:
        raise RecordError(f"{where}: {error}") from None


def _parse_row(data: memoryview, where: str) -> Parsed:
    """Parse an Example; raise an error for a SequenceExample, whose series would be lost silently."""
    try:
        context, series = decode_sequence_example(data)
    except RecordError:  # field 2, which an Example does not have, may hold anything
        context, series = _parse(data, where)
    if series:
        raise RecordError(
            f"{where} is a SequenceExample with the series {quoted(series)}; expected an Example (a row of "
            "a table). Open the mixer or manifest of the export with xee_tf.open_image, or the file with "
            "xee_tf.tf_dataset."
        )
    return context, {}


# -- The features of a layout ------------------------------------------------------------------------


def _names(features: Sequence[Feature]) -> frozenset[str]:
    return frozenset(feature.name for feature in features)


@lru_cache(maxsize=64)
def _order(layout: RecordLayout) -> Order:
    """Return the order of the features in records of a layout."""
    context, sequences = (
        tuple(Feature.stored(feature.name, feature.kind, feature.size) for feature in part)
        for part in (layout.context, layout.sequences or ())
    )
    return Order(context, sequences)


def _matches(found: Feature, expected: Feature) -> bool:
    """Return whether a feature has the expected kind and size."""
    return (found.kind, found.size) == (expected.kind, expected.size) and not found.holds_strings


def _matching_parts(
    named: Mapping[str, Sequence[FeatureValues]], feature: Feature, *, in_sequence: bool
) -> list[FeatureValues]:
    """Return the parts that hold a feature with the expected kind and size."""
    return [
        part
        for part in named.get(feature.name, ())
        if (part.steps is not None) == in_sequence
        if _matches(part.feature, feature) or (part.steps is not None and not part.steps.any())
    ]


def _is_complete(parts: Sequence[FeatureValues], count: int) -> bool:
    """Return whether a single part has all records."""
    return len(parts) == 1 and len(parts[0].records) == count


def _check_complete(frames: Frames, layout: RecordLayout, found: Sequence[Sequence[FeatureValues]]) -> None:
    """Raise an error for the first record that lacks a feature, or has one of another kind or size."""
    if all(_is_complete(parts, frames.count) for parts in found):
        return
    invalid = np.zeros(frames.count, bool)
    for parts in found:
        lacking = np.ones(frames.count, bool)
        for part in parts:
            lacking[part.records] = False
        invalid |= lacking
    if not invalid.any():
        return
    record = int(invalid.argmax())
    scalars, lists = frames.parse(record)
    try:
        what = "feature" if layout.sequences is None else "context feature"
        for feature in layout.context:
            if feature.name not in scalars:
                raise _not_found(what, feature.name, scalars)
            check_values(feature, scalars[feature.name], f"{what} {feature.name!r}")
        for feature in layout.sequences or ():
            if feature.name not in lists:
                raise _not_found("feature list", feature.name, lists)
            for number, values in enumerate(lists[feature.name]):
                check_values(feature, values, f"step {number} of feature {feature.name!r}")
    except RecordError as error:
        raise RecordError(f"{frames.describe(record)}: {error}") from None
    raise AssertionError(f"{frames.describe(record)} was not decoded")  # the parser accepts all valid records


def _not_found(what: str, name: str, available: Mapping[str, Any]) -> RecordError:
    """Return the error for a record that lacks a feature."""
    return RecordError(f"{what} {name!r} not found; available: {quoted(available)}.")


def _merge_context(feature: Feature, parts: Sequence[FeatureValues], count: int) -> npt.NDArray[Any]:
    """Return the values of all records, shape (count, size)."""
    if len(parts) == 1:
        only: npt.NDArray[Any] = np.asarray(parts[0].values)
        return only
    out = np.empty((count, feature.size), LIST_DTYPES[feature.kind])
    for part in parts:
        out[part.records] = part.values
    return out


def _lengths(parts: Sequence[FeatureValues], count: int) -> npt.NDArray[np.int64]:
    """Return the number of steps of each record."""
    if _is_complete(parts, count) and parts[0].steps is not None:
        return parts[0].steps
    lengths = np.zeros(count, np.int64)
    for part in parts:
        lengths[part.records] = 0 if part.steps is None else part.steps
    return lengths


def _depths(
    lengths: Mapping[str, npt.NDArray[np.int64]], steps: Mapping[str, int], frames: Frames
) -> dict[str, int]:
    """Return the number of steps in the array of each sequence."""
    depths = {}
    for name, counts in lengths.items():
        maximum = int(counts.max(initial=0))
        limit = steps.get(name, maximum)
        if maximum > limit:
            record = int((counts > limit).argmax())
            raise RecordError(
                f"{frames.describe(record)}: feature {name!r} has {counts[record]} steps; expected at most "
                f"{limit}. Pass the maximum of all records, such as tensor_depths={{{name!r}: {maximum}}}."
            )
        depths[name] = limit
    return depths


def _merge_steps(
    feature: Feature, parts: Sequence[FeatureValues], count: int, depth: int, fill: float
) -> npt.NDArray[Any]:
    """Return the steps of all records, shape (count, depth, size), padded with `fill`."""
    if len(parts) == 1:
        whole: npt.NDArray[Any] = np.asarray(parts[0].values)
        if whole.size == count * depth * feature.size:
            return whole.reshape(count, depth, feature.size).astype(LIST_DTYPES[feature.kind], copy=False)
    wide = np.full((count, depth, feature.size), fill, LIST_DTYPES[feature.kind])
    for part in parts:
        values: Any = part.values
        if part.steps is None or not part.steps.any():
            continue
        if values.ndim == 3:
            wide[:, : values.shape[1]] = values
        else:
            rows, columns = np.nonzero(np.arange(depth) < part.steps[:, None])
            wide[part.records[rows], columns] = values
    return wide
