"""Records that are all built alike: their constant bytes are compared with a template, nothing is parsed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from xee_tf.errors import RecordError
from xee_tf.records.frames import Frames
from xee_tf.records.layout import Template, record_template
from xee_tf.records.varied import order_of
from xee_tf.records.walk import FeatureValues, Order, Wanted, walk

__all__ = ["find_alike", "views"]


def find_alike(frames: Frames, orders: Sequence[Order]) -> Template | None:
    """The template of all records if they are built like the first; their CRCs are not looked at."""
    if not frames.count or not (np.diff(frames.offsets) == frames.offsets[1]).all():
        return None
    block = frames.raw.reshape(frames.count, -1)
    for order in _candidates(frames, orders):
        template = _template(frames, order)
        if template is not None and all(
            template.matches(block[start : start + frames.batch])
            for start in range(0, frames.count, frames.batch)
        ):
            return template
    return None


def views(frames: Frames, template: Template) -> list[FeatureValues]:
    """The features of records of one template, as strided views of the buffer."""
    block, every = frames.raw.reshape(frames.count, -1), np.arange(frames.count)
    parts = []
    for place, slot in enumerate(template.slots):
        steps = None if slot.steps is None else np.full(frames.count, slot.steps)
        outer = (frames.count,) if slot.steps is None else (frames.count, slot.steps)
        parts.append(
            FeatureValues(slot.feature, place, every, slot.view(block, (*outer, slot.feature.size)), steps)
        )
    return parts


def _candidates(frames: Frames, orders: Sequence[Order]) -> Iterator[Order]:
    """The orders that are known, then that of the first record."""
    yield from orders
    try:
        order = order_of(frames, frames.parse(0))
    except RecordError:
        return  # it is parsed again, and then the error says what is wrong
    if order not in orders:
        yield order


def _template(frames: Frames, order: Order) -> Template | None:
    """The template of the first record if it has all features of an order; None if it cannot have them."""
    if not all(feature.exact for feature in (*order.context, *order.sequences)):
        return None
    steps: tuple[int, ...] = ()
    if order.sequences:
        _, parts = walk(frames, np.zeros(1, np.int64), order, Wanted((), ()))
        steps = tuple(int(part.steps[0]) for part in parts if part.steps is not None)
        if len(parts) != len(order.context) + len(order.sequences):
            return None
    template = record_template(order.context, order.sequences, steps)
    return template if template.size == frames.offsets[1] else None
