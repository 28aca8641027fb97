"""The features of records that are not alike: read together as far as possible, parsed alone where not.

Orders of features are learned from the records: one is parsed alone, and all others that hold the same
features, or some of them, are read with it. Protobuf's maps have no order of their own, and writers leave out
features that are missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.records.feature import STRINGS, Feature
from xee_tf.records.frames import Frames
from xee_tf.records.parse import Parsed, feature_of
from xee_tf.records.ragged import Ragged
from xee_tf.records.walk import FeatureValues, Order, Wanted, walk

__all__ = ["order_of", "read_varied"]

_MAX_ORDERS = 32  # of features that are remembered
_FEW = 64  # records that are read together however long they are
_SINGLE = 4  # Examples up to which parsing each alone takes less time than reading them together


def read_varied(frames: Frames, orders: list[Order], wanted: Wanted) -> list[FeatureValues]:
    """The features of framed records; what is learned is added to the orders that they are likely to have."""
    parts: list[FeatureValues] = []
    alone: dict[Order, list[tuple[int, Parsed]]] = {}

    def take(order: Order, left: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Read the records that have the features of an order; those that are left."""
        right, found = walk(frames, left, order, wanted)
        parts.extend(found)
        return left[~right]

    together = frames.count
    if wanted.pass_others and not wanted.sequences and frames.count <= _SINGLE:
        together = 0
        for record in range(frames.count):
            parsed = frames.parse(record)
            alone.setdefault(order_of(frames, parsed), []).append((record, parsed))
    batch = max(_FEW, frames.batch)
    for start in range(0, together, batch):
        left = np.arange(start, min(start + batch, frames.count))
        for order in tuple(orders):
            if len(left):
                left = take(order, left)
        while len(left):
            record = int(left[0])
            parsed = frames.parse(record)
            order = order_of(frames, parsed)
            learned = _learn(orders, order, wanted)
            if learned is not None:
                left = take(learned, left)
            if len(left) and left[0] == record:
                alone.setdefault(order, []).append((record, parsed))
                left = left[1:]
    for order, records in alone.items():
        parts += _stack(order, records, wanted)
    return parts


def order_of(frames: Frames, parsed: Parsed) -> Order:
    """The features of one record, in the order of its message."""
    blobs = frames.blobs
    context = tuple(feature_of(name, values, blobs=blobs) for name, values in parsed[0].items())
    sequences = []
    for name, steps in parsed[1].items():
        kinds = {None if step is None else feature_of(name, step, blobs=blobs) for step in steps}
        feature = kinds.pop() if len(kinds) == 1 else None
        if feature is None:  # without a step, of any kind; or steps that differ, which no array holds
            feature = Feature.strings(name) if steps else Feature.stored(name, "float", 1)
        sequences.append(feature)
    return Order(context, tuple(sequences))


def _learn(orders: list[Order], order: Order, wanted: Wanted) -> Order | None:
    """Add the features of a record to an order that allows it, or add an order; None if nothing is new."""
    for features, names in ((order.context, wanted.context), (order.sequences, wanted.sequences)):
        for feature in features:
            passed = wanted.pass_others and names is not None and feature.name not in names
            several = feature.dtype == STRINGS and (feature.size > 1 or feature in order.sequences)
            if several and not passed:
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
            return None  # it was tried: the record is written in another way
        orders[number] = merged
        return merged
    if len(orders) == _MAX_ORDERS:
        return None
    orders.append(order)
    return order


def _merge(known: tuple[Feature, ...], features: tuple[Feature, ...]) -> tuple[Feature, ...] | None:
    """The shortest order that has both; None if they contradict one another.

    Examples
    --------
    >>> a, b, c = (Feature.stored(name, "float", 1) for name in "abc")
    >>> [feature.name for feature in _merge((a, c), (a, b))]
    ['a', 'b', 'c']
    >>> _merge((a, c), (c, a))
    """
    merged, last = list(known), -1
    for feature in features:
        place = merged.index(feature) if feature in merged else None
        if place is None:
            place = last + 1
            merged.insert(place, feature)
        if place <= last:
            return None
        last = place
    return tuple(merged)


def _stack(order: Order, found: Sequence[tuple[int, Parsed]], wanted: Wanted) -> list[FeatureValues]:
    """The features of records of one order that were parsed alone."""
    records = np.array([record for record, _ in found], np.int64)
    parts = []
    for place, feature in enumerate(order.context):
        values = None
        if wanted.context is None or feature.name in wanted.context:
            values = _stacked(feature, [parsed[0][feature.name] for _, parsed in found])
        parts.append(FeatureValues(feature, place, records, values))
    for place, feature in enumerate(order.sequences):
        lists = [parsed[1][feature.name] for _, parsed in found]
        counts = np.array([len(steps) for steps in lists], np.int64)
        steps: list[Any] = [step for one in lists for step in one]
        values = None
        if feature.dtype != STRINGS and (wanted.sequences is None or feature.name in wanted.sequences):
            values = _stacked(feature, steps) if steps else np.empty((0, feature.size), feature.dtype)
        parts.append(FeatureValues(feature, place, records, values, counts))
    return parts


def _stacked(feature: Feature, lists: Sequence[Any]) -> npt.NDArray[Any] | Ragged:
    """The values of several records."""
    if feature.kind != "bytes":
        return np.stack(lists)
    if feature.dtype == STRINGS and feature.size != 1:
        return np.fromiter(lists, object, len(lists))
    strings = [strings[0] for strings in lists]
    joined = Ragged.of(strings)
    return joined if feature.dtype == STRINGS else joined.data.reshape(len(lists), feature.size)
