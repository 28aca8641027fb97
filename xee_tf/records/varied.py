"""Decode records that differ in more than their values: together if possible, otherwise one by one.

The orders of features are collected from the records: one record is parsed by itself, then all others with
the same features, or some of them, are decoded together. Maps of protobuf are not ordered, and writers omit
features without a value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.feature import Feature
from xee_tf.records.frames import Frames
from xee_tf.records.parse import Parsed, infer_feature
from xee_tf.records.ragged import Ragged
from xee_tf.records.walk import FeatureValues, Order, Selection, walk

__all__ = ["order_of", "read_varied"]

_MAX_ORDERS = 32  # number of orders of features that are kept
_MIN_BATCH = 64  # records that are decoded together, whatever their length
_FEW_RECORDS = 4  # number of Examples up to which they are parsed one by one
# After this many new orders that fit few records, records with new orders are parsed one by one.
_MAX_MISSES = 8
_MISS = 64  # an order is a miss if it fits less than one of this many records


def read_varied(frames: Frames, orders: list[Order], selection: Selection) -> list[FeatureValues]:
    """Decode the features of framed records; new orders of features are added to `orders`."""
    parts: list[FeatureValues] = []
    singles: dict[Order, list[tuple[int, Parsed]]] = {}

    def decode_order(order: Order, remaining: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Decode the records that have the features of an order; return the other records."""
        features = len(order.context) + len(order.sequences)
        # Each feature takes time for every record. If records have few of the features, parsing is faster.
        if len(remaining) * features > (frames.offsets[remaining + 1] - frames.offsets[remaining]).sum():
            return remaining
        valid, found = walk(frames, remaining, order, selection)
        parts.extend(found)
        return remaining[~valid]

    together, misses, compared = frames.count, 0, 0
    if selection.ignore_others and not selection.sequences and frames.count <= _FEW_RECORDS:
        # Takes a fifth to three quarters of the time of decoding them together, unless lists are very long.
        together = 0
        for record in range(frames.count):
            parsed = frames.parse(record)
            singles.setdefault(order_of(frames, parsed), []).append((record, parsed))
    batch_size = max(_MIN_BATCH, frames.batch_size)
    for start in range(0, together, batch_size):
        remaining = np.arange(start, min(start + batch_size, frames.count))
        for order in tuple(orders):
            if len(remaining):
                remaining = decode_order(order, remaining)
        while len(remaining):
            record = int(remaining[0])
            parsed = frames.parse(record)
            order = order_of(frames, parsed)
            new = None
            if misses < _MAX_MISSES and compared <= len(frames.raw):
                compared += sum(len(known.context) + len(known.sequences) for known in orders)
                new = _add_order(orders, order, selection)
            if new is not None:
                before = len(remaining)
                remaining = decode_order(new, remaining)
                misses += (before - len(remaining)) * _MISS < before
            if len(remaining) and remaining[0] == record:
                singles.setdefault(order, []).append((record, parsed))
                remaining = remaining[1:]
    for order, records in singles.items():
        parts += _stack(order, records, selection)
    return parts


def order_of(frames: Frames, parsed: Parsed) -> Order:
    """Return the features of one record, in the order of its message."""
    blobs = frames.blobs
    context = tuple(infer_feature(name, values, blobs=blobs) for name, values in parsed[0].items())
    sequences = []
    for name, steps in parsed[1].items():
        kinds = {None if step is None else infer_feature(name, step, blobs=blobs) for step in steps}
        feature = kinds.pop() if len(kinds) == 1 else None
        if feature is None:  # without steps the kind is arbitrary; different steps do not fit into an array
            feature = Feature.strings(name) if steps else Feature.stored(name, "float", 1)
        sequences.append(feature)
    return Order(context, tuple(sequences))


def _add_order(orders: list[Order], order: Order, selection: Selection) -> Order | None:
    """Merge the order of a record into a compatible order, or append it; return None if nothing is new."""
    for features, names in ((order.context, selection.context), (order.sequences, selection.sequences)):
        for feature in features:
            skipped = selection.ignore_others and names is not None and feature.name not in names
            several = feature.holds_strings and (feature.size > 1 or feature in order.sequences)
            if several and not skipped:
                return None
    if not order.context and not order.sequences:
        return None
    for number, known in enumerate(orders):
        context = _merge(known.context, order.context)
        sequences = _merge(known.sequences, order.sequences)
        if context is None or sequences is None or bool(known.sequences) != bool(order.sequences):
            continue
        merged = Order(context, sequences)
        if merged == known:
            return None  # already tried: the record is encoded differently
        orders[number] = merged
        return merged
    if len(orders) == _MAX_ORDERS:
        return None
    orders.append(order)
    return order


def _merge(known: tuple[Feature, ...], features: tuple[Feature, ...]) -> tuple[Feature, ...] | None:
    """Return the shortest order that contains both, or None if they contradict each other.

    Examples
    --------
    >>> a, b, c = (Feature.stored(name, "float", 1) for name in "abc")
    >>> [feature.name for feature in _merge((a, c), (a, b))]
    ['a', 'b', 'c']
    >>> _merge((a, c), (c, a))
    """
    places = {feature: place for place, feature in enumerate(known)}
    merged: list[Feature] = []
    used = 0  # number of known features in `merged`
    for feature in features:
        place = places.get(feature)
        if place is None:
            merged.append(feature)
        elif place < used:
            return None
        else:
            merged += known[used : place + 1]
            used = place + 1
    return (*merged, *known[used:])


def _stack(order: Order, found: Sequence[tuple[int, Parsed]], selection: Selection) -> list[FeatureValues]:
    """Stack the features of records of one order that were parsed one by one."""
    records = np.array([record for record, _ in found], np.int64)
    parts = []
    for index, feature in enumerate(order.context):
        values = None
        if selection.context is None or feature.name in selection.context:
            values = _stack_lists(feature, [parsed[0][feature.name] for _, parsed in found])
        parts.append(FeatureValues(feature, index, records, values))
    for index, feature in enumerate(order.sequences):
        lists = [parsed[1][feature.name] for _, parsed in found]
        counts = np.array([len(steps) for steps in lists], np.int64)
        steps: list[Any] = [step for one in lists for step in one]
        values = None
        if not feature.holds_strings and (selection.sequences is None or feature.name in selection.sequences):
            values = _stack_lists(feature, steps) if steps else np.empty((0, feature.size), feature.dtype)
        parts.append(FeatureValues(feature, index, records, values, counts))
    return parts


def _stack_lists(feature: Feature, lists: Sequence[Any]) -> npt.NDArray[Any] | Ragged:
    """Stack the lists of a feature in several records."""
    if feature.kind != "bytes":
        return np.stack(lists)
    if feature.holds_strings and feature.size != 1:
        return np.fromiter(lists, object, len(lists))
    strings = [strings[0] for strings in lists]
    joined = Ragged.of(strings)
    return joined if feature.holds_strings else joined.data.reshape(len(lists), feature.size)
