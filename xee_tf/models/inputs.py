"""Which band, property or column goes to which input of a model, and the tensors that it becomes."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Signature, TensorInfo
from xee_tf.errors import ModelError, OptionError
from xee_tf.models.options import Declared
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING, coerce, type_name
from xee_tf.options import did_you_mean

__all__ = [
    "Feed",
    "Item",
    "arrangements",
    "check_overrides",
    "fits",
    "group_inputs",
    "listed",
    "no_room",
    "plan_feeds",
]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Item:
    """A band, a property or a column that a model may see.

    Parameters
    ----------
    dtype : numpy.dtype
        Object for strings.
    shape : tuple of int
        Of its value in a pixel or a row; empty for a single number.
    tiled : bool
        A band, with a value for each pixel of a tile; else there is one for each instance.
    """

    dtype: np.dtype[Any]
    shape: Shape = ()
    tiled: bool = False

    @property
    def size(self) -> int:
        """Values in a pixel or a row."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Feed:
    """One input of the model and what goes into it.

    Parameters
    ----------
    input : str
    members : tuple of str
        Bands, properties or columns; several are stacked along the last axis, scalars beside arrays being
        repeated.
    items : tuple of Item
        What each of them is.
    overrides : tuple of (Declared or None)
        The type that each of them is coerced to first.
    dtype : numpy.dtype
        Of the tensor.
    shape : tuple of int
        Of the tensor in each pixel or row.
    """

    input: str
    members: tuple[str, ...]
    items: tuple[Item, ...]
    overrides: tuple[Declared | None, ...]
    dtype: np.dtype[Any]
    shape: Shape

    @property
    def tiled(self) -> bool:
        """Whether it has pixels."""
        return self.items[0].tiled

    @property
    def itemsize(self) -> int:
        """Bytes in a pixel or a row."""
        return math.prod(self.shape) * self.dtype.itemsize

    def tensor(self, values: Arrays) -> npt.NDArray[Any]:
        """The tensor of a batch.

        Parameters
        ----------
        values : mapping from str to ndarray
            Of the members: ``(n, height, width, *shape)`` for bands, ``(n, *shape)`` for others.
        """
        arrays = [
            values[name] if override is None else _overridden(values[name], override)
            for name, override in zip(self.members, self.overrides, strict=True)
        ]
        lead = arrays[0].shape[: 3 if self.tiled else 1]
        if len(arrays) == 1:
            return coerce(arrays[0], self.dtype).reshape(lead + self.shape)
        out = np.empty(lead + self.shape, self.dtype)
        *steps, _ = self.shape
        start = 0
        for channel, (array, item) in enumerate(zip(arrays, self.items, strict=True)):
            if steps:  # (*lead, *steps, band)
                ones = (1,) * (len(steps) - len(item.shape))
                every = np.broadcast_to(array.reshape(lead + ones + item.shape), out.shape[:-1])
                coerce(every, self.dtype, out[..., channel])
            else:
                coerce(array.reshape(*lead, item.size), self.dtype, out[..., start : start + item.size])
                start += item.size
        return out


def arrangements(shapes: Sequence[Shape], *, tiled: bool, flat: bool = True) -> list[Shape]:
    """The shapes that values can have together in a pixel or a row, the usual one first.

    Parameters
    ----------
    shapes : sequence of tuple of int
        Of each of the values.
    tiled : bool
        They are bands of an image; else properties, or columns of a table.
    flat : bool
        Whether arrays may become channels one behind the other.

    Examples
    --------
    >>> arrangements([()], tiled=True), arrangements([(7,)], tiled=True)
    ([(1,), ()], [(7,), (7, 1)])
    >>> arrangements([(7,), (), (7,)], tiled=True)  # steps and bands, or channels
    [(7, 3), (15,)]
    """
    if len(shapes) == 1:
        (shape,) = shapes
        found = [shape, (*shape, 1)]
        return found[::-1] if tiled and not shape else found
    try:
        together = [(*np.broadcast_shapes(*shapes), len(shapes))]
    except ValueError:
        together = []
    side_by_side = [(sum(map(math.prod, shapes)),)]
    if not flat or together == side_by_side:
        return together
    return together + side_by_side if tiled else side_by_side + together


def fits(wanted: Sequence[int | None], shape: Shape) -> bool:
    """Whether a shape is what a model takes; None stands for any length."""
    return len(wanted) == len(shape) and all(a in (None, b) for a, b in zip(wanted, shape, strict=True))


def _overridden(values: npt.NDArray[Any], override: Declared) -> npt.NDArray[Any]:
    if override.dtype is not None:
        values = coerce(values, override.dtype)
    return values if override.limits is None else np.clip(values, *override.limits)


def check_overrides(spec: ModelSpec, names: Collection[str], whole: str) -> None:
    """Raise an error if `input_type_override` names what an image or a table does not have.

    Parameters
    ----------
    spec : ModelSpec
    names : collection of str
        Of all bands, or columns, and properties.
    whole : str
        "image" or "table".
    """
    for name in spec.input_type_override or ():
        if name not in names:
            raise OptionError(
                f"input_type_override has a type for {name!r}, which the {whole} lacks. It has "
                f"{listed(list(names))}.{did_you_mean(name, names)}"
            )


def plan_feeds(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item], *, table: bool
) -> tuple[Feed, ...]:
    """Which of `items` go where.

    Parameters
    ----------
    spec : ModelSpec
    signature : Signature
    items : mapping
        What there is: the bands and properties of an image, or the columns of a table.
    table : bool
        It is a table.

    Raises
    ------
    OptionError
        If the model wants what is not there, or it is ambiguous what goes where; the choices are listed.
    """
    words = _Words(table, spec, signature, items)
    groups = _groups(spec, signature.inputs, items, words)
    return tuple(
        _feed(spec, target, members, items, signature.inputs, words) for target, members in groups.items()
    )


def group_inputs(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item]
) -> Mapping[str, tuple[str, ...]]:
    """The bands and properties of an image that go to each input; shapes do not matter yet.

    Raises
    ------
    OptionError
        As `plan_feeds` does.
    """
    return _groups(spec, signature.inputs, items, _Words(False, spec, signature, items))


@dataclass(frozen=True)
class _Words:
    """The words of errors."""

    table: bool
    spec: ModelSpec
    signature: Signature
    items: Mapping[str, Item]

    @property
    def whole(self) -> str:
        return "table" if self.table else "image"

    @property
    def order(self) -> str:
        return "input_properties" if self.table else "bands"

    @property
    def there(self) -> str:
        bands = [name for name, item in self.items.items() if item.tiled or self.table]
        others = [name for name in self.items if name not in bands]
        found = f"The {self.whole} has {'the columns' if self.table else 'the bands'} {listed(bands)}"
        return found + (f" and the properties {listed(others)}." if others else ".")

    @property
    def wanted(self) -> str:
        inputs = self.signature.inputs or {}
        return "Its inputs: " + "; ".join(f"{name}: {info}" for name, info in inputs.items()) + "."

    def lacking(self, names: Sequence[str]) -> OptionError:
        return OptionError(
            f"{self.spec.connector} wants {listed(names)}, which the {self.whole} lacks. {self.there}"
        )


def _groups(
    spec: ModelSpec, inputs: Mapping[str, TensorInfo] | None, items: Mapping[str, Item], words: _Words
) -> dict[str, tuple[str, ...]]:
    """The members of each input."""
    chosen = spec.input_properties if words.table else spec.bands
    extra = () if words.table else spec.input_properties
    if missing := [name for name in (*(chosen or ()), *extra, *(spec.inputs or ())) if name not in items]:
        raise words.lacking(missing)
    if spec.inputs is not None:
        groups: dict[str, tuple[str, ...]] = {}
        for name, into in spec.inputs.items():
            groups[into] = (*groups.get(into, ()), name)
        # What goes to an input of its own name need not be said.
        groups |= {name: (name,) for name in extra if name not in groups and name not in spec.inputs}
        left = [name for name in inputs or () if name not in groups]
        groups |= {name: (name,) for name in left if name in items and name not in spec.inputs}
        return _checked(groups, inputs, words)
    mains = tuple(chosen or (name for name, item in items.items() if item.tiled or words.table))
    own: dict[str, tuple[str, ...]] = {name: (name,) for name in extra}
    if inputs is None and spec.input_name is None:
        return {**{name: (name,) for name in mains}, **own}
    left = [name for name in inputs or () if name not in own]
    if (target := spec.input_name) is None:
        if not left:
            raise OptionError(f"{spec.connector} has no input for {listed(mains)}. {words.wanted}")
        if set(left) <= set(items) and (not chosen or set(left) == set(chosen)):
            return _checked({**{name: (name,) for name in left}, **own}, inputs, words)
        if len(left) > 1 and chosen:
            raise OptionError(
                f"{words.order}={list(chosen)} are not the inputs of {spec.connector}, {listed(left)}, and "
                f"could go to any of them. Say where: input_name={left[0]!r} stacks them all in it, "
                f"inputs={{{chosen[0]!r}: {left[0]!r}, ...}} says it for each."
            )
        if len(left) > 1:
            raise words.lacking([name for name in left if name not in items])
        (target,) = left
    return _checked({target: mains, **own}, inputs, words)


def _checked(
    groups: dict[str, tuple[str, ...]], inputs: Mapping[str, TensorInfo] | None, words: _Words
) -> dict[str, tuple[str, ...]]:
    if inputs is not None:
        if unknown := [name for name in groups if name not in inputs]:
            raise OptionError(f"{words.spec.connector} has no input {listed(unknown)}. {words.wanted}")
        if missing := [name for name in inputs if name not in groups]:
            raise words.lacking(missing)
    return groups


def _feed(
    spec: ModelSpec,
    target: str,
    members: tuple[str, ...],
    items: Mapping[str, Item],
    inputs: Mapping[str, TensorInfo] | None,
    words: _Words,
) -> Feed:
    found = tuple(items[name] for name in members)
    info = (inputs or {}).get(target, TensorInfo())
    if len({item.tiled for item in found}) > 1:
        raise OptionError(
            f"{listed(members)} cannot be stacked in the input {target!r}: some are bands with pixels, "
            "others are properties with one value. Give them inputs of their own."
        )
    for name, item in zip(members, found, strict=True):
        declared = (spec.input_shapes or {}).get(name)
        if declared is not None and declared not in (item.shape, item.shape or (1,)):
            raise OptionError(
                f"input_shapes says {list(declared)} for {name!r}, and in the {words.whole} it is "
                f"{list(item.shape)}."
            )
    overrides = tuple((spec.input_type_override or {}).get(name) for name in members)
    dtype = _dtype(members, found, overrides, info, words)
    shape = _shape(target, members, found, info, words)
    return Feed(target, members, found, overrides, dtype, shape)


def _dtype(
    members: tuple[str, ...],
    items: tuple[Item, ...],
    overrides: tuple[Declared | None, ...],
    info: TensorInfo,
    words: _Words,
) -> np.dtype[Any]:
    declared = [None if override is None else override.dtype for override in overrides]
    own = [dtype or item.dtype for dtype, item in zip(declared, items, strict=True)]
    if info.dtype is None:
        texts = [dtype == STRING for dtype in own]
        if any(texts) and not all(texts):
            raise OptionError(f"{listed(members)} cannot be stacked: some are strings, others are numbers.")
        return np.result_type(*own)
    for name, dtype in zip(members, own, strict=True):
        text = dtype == STRING, info.dtype == STRING
        if any(text) != all(text) or not np.can_cast(dtype, info.dtype, "same_kind"):
            raise OptionError(
                f"{words.spec.connector} takes {name!r} as {type_name(info.dtype)}, and it is "
                f"{type_name(dtype)} here. If dropping what does not fit is meant: "
                f"input_type_override={{{name!r}: {type_name(info.dtype)!r}}}."
            )
    return info.dtype


def _shape(
    target: str, members: tuple[str, ...], items: tuple[Item, ...], info: TensorInfo, words: _Words
) -> Shape:
    """The shape of a tensor in each pixel or row: that of a single array band, or of a stack."""
    lead = 3 if items[0].tiled else 1
    rank = None if info.shape is None else len(info.shape)
    total = sum(item.size for item in items)
    found = arrangements(
        [item.shape for item in items],
        tiled=items[0].tiled,
        flat=not items[0].tiled or words.spec.array_dims is None,
    )
    if not found:
        raise OptionError(
            f"{listed(members)} cannot be stacked in the input {target!r}: they have the shapes "
            f"{', '.join(str(list(item.shape)) for item in items)} in each pixel. Give them inputs of their "
            "own."
        )
    if words.spec.array_dims and items[0].tiled and not set(members) & set(words.spec.input_shapes or ()):
        found.sort(key=len, reverse=True)  # steps and bands, also of a single band
    if words.table and target not in members and found[0] == ():
        found.reverse()  # the only column of those that are stacked
    shape = found[0]
    if info.shape is None:
        return shape
    wanted = info.shape[lead:]
    if rank is not None and rank >= lead:
        if fitting := [each for each in found if fits(wanted, each)]:
            return fitting[0]
        # A scalar band is forwarded with a last axis of 1 (Earth Engine's guide), unless the model has no
        # room for it. A property has none of its own.
        if math.prod(shape) == 1 and all(side in (None, 1) for side in wanted):
            return (1,) * len(wanted)
    if rank is not None and (rank < lead or (rank == lead and items[0].tiled)):
        raise no_room(words.spec, target, info)
    if len(wanted) == 1 and len(shape) <= 1:
        raise OptionError(
            f"The input {target!r} of {words.spec.connector} takes {wanted[0]} channels, and "
            f"{listed(members)} have {total}. {words.there} Say which the model wants, in its order: "
            f"{words.order}=[...]."
        )
    raise OptionError(
        f"The input {target!r} of {words.spec.connector} is {info}, and {listed(members)} would be sent "
        f"with the shape {shape} in each {'pixel' if lead == 3 else 'row'}. {words.there}"
    )


def no_room(spec: ModelSpec, target: str, info: TensorInfo) -> ModelError:
    """The error that a model takes single pixels or rows, and was given tiles."""
    inner = ", ".join("?" if side is None else str(side) for side in (info.shape or ())[1:]) or "channels"
    return ModelError(
        f"The input {target!r} of {spec.connector} is {info}: it has no room for the height and width of a "
        "tile beside the values of its pixels. A model of single pixels or rows predicts from tables. For "
        f"images, let it take and return (n, height, width, {inner}); or give Model.from_function a function "
        f"that reshapes tiles to (-1, {inner}), calls the model and reshapes its answer to (n, height, "
        "width, ...), with array_dims=[...] where it takes steps of a dimension."
    )


def listed(names: Sequence[Hashable]) -> str:
    """Names for an error, the first twelve of many."""
    shown = [repr(name) for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if shown else "none"
