"""Decode records that differ only in their values, by comparing their constant bytes with a template."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from xee_tf.errors import RecordError
from xee_tf.records.frames import Frames
from xee_tf.records.layout import Template, record_template
from xee_tf.records.varied import order_of
from xee_tf.records.walk import FeatureValues, Order, Selection, walk

__all__ = ["find_template", "read_uniform"]


def find_template(frames: Frames, orders: Sequence[Order]) -> Template | None:
    """Return the template that all records match, or None if they differ; CRCs are not checked."""
    if not frames.count or not (np.diff(frames.offsets) == frames.offsets[1]).all():
        return None
    block = frames.raw.reshape(frames.count, -1)
    for order in _candidates(frames, orders):
        template = _template(frames, order)
        if template is not None and all(
            template.matches(block[start : start + frames.batch_size])
            for start in range(0, frames.count, frames.batch_size)
        ):
            return template
    return None


def read_uniform(frames: Frames, template: Template) -> list[FeatureValues]:
    """Return the features of records that match a template, as strided views of the buffer."""
    block, every = frames.raw.reshape(frames.count, -1), np.arange(frames.count)
    parts = []
    for index, slot in enumerate(template.slots):
        steps = None if slot.steps is None else np.full(frames.count, slot.steps)
        outer = (frames.count,) if slot.steps is None else (frames.count, slot.steps)
        parts.append(
            FeatureValues(slot.feature, index, every, slot.view(block, (*outer, slot.feature.size)), steps)
        )
    return parts


def _candidates(frames: Frames, orders: Sequence[Order]) -> Iterator[Order]:
    """Yield the known orders, then the order of the first record."""
    yield from orders
    try:
        order = order_of(frames, frames.parse(0))
    except RecordError:
        return  # the record is parsed again later, which raises the error
    if order not in orders:
        yield order


def _template(frames: Frames, order: Order) -> Template | None:
    """Return the template of the first record, or None if it does not have all features of an order."""
    if not all(feature.fixed_size for feature in (*order.context, *order.sequences)):
        return None
    steps: tuple[int, ...] = ()
    if order.sequences:
        _, parts = walk(frames, np.zeros(1, np.int64), order, Selection((), ()))
        steps = tuple(int(part.steps[0]) for part in parts if part.steps is not None)
        if len(parts) != len(order.context) + len(order.sequences):
            return None
    template = record_template(order.context, order.sequences, steps)
    return template if template.size == frames.offsets[1] else None
