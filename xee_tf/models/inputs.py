"""Which band, property or column goes to which input of a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import ModelError, OptionError
from xee_tf.models.feeds import Feed, Item, Shape, arrangements, fits
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING, type_name
from xee_tf.options import did_you_mean

__all__ = ["check_overrides", "check_wanted", "group_inputs", "lacking", "listed", "no_room", "plan_feeds"]


def check_overrides(spec: ModelSpec, names: Collection[str], whole: str) -> None:
    """Raise an error if `input_type_override` names what an image or a table (`whole`) does not have."""
    for name in spec.input_type_override or ():
        if name not in names:
            raise OptionError(
                f"input_type_override has a type for {name!r}, which the {whole} lacks. It has "
                f"{listed(list(names))}.{did_you_mean(name, names)}"
            )


def check_wanted(spec: ModelSpec, names: Collection[Hashable], there: str, *, table: bool) -> None:
    """Raise an error if a model is given bands, properties or columns that are not among `names`.

    `there` is the sentence that lists what an image or a table has.
    """
    given = (*(() if table else spec.bands or ()), *spec.input_properties, *(spec.inputs or ()))
    if missing := [name for name in given if name not in names]:
        raise lacking(spec, missing, there, table=table)


def lacking(spec: ModelSpec, names: Sequence[str], there: str, *, table: bool) -> OptionError:
    """The error that a model wants what an image or a table does not have; see `check_wanted`."""
    whole = "table" if table else "image"
    return OptionError(f"{spec.connector} wants {listed(names)}, which the {whole} lacks. {there}")


def plan_feeds(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item], *, table: bool
) -> tuple[Feed, ...]:
    """Which of `items`, the bands and properties of an image or the columns of a table, go where.

    Raises
    ------
    OptionError
        If the model wants what is not there, or it is ambiguous what goes where; the choices are listed.
    """
    plan = _Plan(spec, signature.inputs, items, table)
    return tuple(plan.feed(target, members) for target, members in plan.groups().items())


def group_inputs(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item]
) -> Mapping[str, tuple[str, ...]]:
    """The bands and properties of an image that go to each input; shapes do not matter yet.

    Raises
    ------
    OptionError
        As `plan_feeds` does.
    """
    return _Plan(spec, signature.inputs, items, table=False).groups()


@dataclass(frozen=True)
class _Plan:
    """What there is, where it can go, and the errors that list both."""

    spec: ModelSpec
    inputs: Mapping[str, TensorInfo] | None  # None: the model does not tell them
    items: Mapping[str, Item]
    table: bool

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
        told = "; ".join(f"{name}: {info}" for name, info in (self.inputs or {}).items())
        return f"Its inputs: {told}."

    def lacking(self, names: Sequence[str]) -> OptionError:
        return lacking(self.spec, names, self.there, table=self.table)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """The members of each input."""
        spec = self.spec
        chosen = spec.input_properties if self.table else spec.bands
        extra = () if self.table else spec.input_properties
        check_wanted(spec, self.items, self.there, table=self.table)
        if spec.inputs is not None:
            groups: dict[str, tuple[str, ...]] = {}
            for name, into in spec.inputs.items():
                groups[into] = (*groups.get(into, ()), name)
            # What goes to an input of its own name need not be said.
            groups |= {name: (name,) for name in extra if name not in groups and name not in spec.inputs}
            left = [name for name in self.inputs or () if name not in groups]
            groups |= {name: (name,) for name in left if name in self.items and name not in spec.inputs}
            return self._checked(groups)
        mains = tuple(chosen or (name for name, item in self.items.items() if item.tiled or self.table))
        own: dict[str, tuple[str, ...]] = {name: (name,) for name in extra}
        if self.inputs is None and spec.input_name is None:
            return {**{name: (name,) for name in mains}, **own}
        left = [name for name in self.inputs or () if name not in own]
        if (target := spec.input_name) is None:
            if not left:
                raise OptionError(f"{spec.connector} has no input for {listed(mains)}. {self.wanted}")
            if set(left) <= set(self.items) and (not chosen or set(left) == set(chosen)):
                return self._checked({**{name: (name,) for name in left}, **own})
            if len(left) > 1 and chosen:
                raise OptionError(
                    f"{self.order}={list(chosen)} are not the inputs of {spec.connector}, {listed(left)}, "
                    f"and could go to any of them. Say where: input_name={left[0]!r} stacks them all in it, "
                    f"inputs={{{chosen[0]!r}: {left[0]!r}, ...}} says it for each."
                )
            if len(left) > 1:
                raise self.lacking([name for name in left if name not in self.items])
            (target,) = left
        return self._checked({target: mains, **own})

    def _checked(self, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if self.inputs is not None:
            if unknown := [name for name in groups if name not in self.inputs]:
                raise OptionError(f"{self.spec.connector} has no input {listed(unknown)}. {self.wanted}")
            if missing := [name for name in self.inputs if name not in groups]:
                raise self.lacking(missing)
        return groups

    def feed(self, target: str, names: tuple[str, ...]) -> Feed:
        """What goes into an input."""
        members = {name: self.items[name] for name in names}
        info = (self.inputs or {}).get(target, TensorInfo())
        if len({item.tiled for item in members.values()}) > 1:
            raise OptionError(
                f"{listed(names)} cannot be stacked in the input {target!r}: some are bands with pixels, "
                "others are properties with one value. Give them inputs of their own."
            )
        for name, item in members.items():
            declared = (self.spec.input_shapes or {}).get(name)
            if declared is not None and declared not in (item.shape, item.shape or (1,)):
                raise OptionError(
                    f"input_shapes says {list(declared)} for {name!r}, and in the {self.whole} it is "
                    f"{list(item.shape)}."
                )
        types = self.spec.input_type_override or {}
        overrides = {name: types[name] for name in names if name in types}
        own = {name: (types[name].dtype if name in types else None) or members[name].dtype for name in names}
        return Feed(target, members, overrides, self._dtype(own, info), self._shape(target, members, info))

    def _dtype(self, own: Mapping[str, np.dtype[Any]], info: TensorInfo) -> np.dtype[Any]:
        """The type of a tensor: what the model takes, or what holds all members."""
        if info.dtype is None:
            if len({dtype == STRING for dtype in own.values()}) > 1:
                raise OptionError(
                    f"{listed(list(own))} cannot be stacked: some are strings, others are numbers."
                )
            return np.result_type(*own.values())
        for name, dtype in own.items():
            text = dtype == STRING, info.dtype == STRING
            if any(text) != all(text) or not np.can_cast(dtype, info.dtype, "same_kind"):
                raise OptionError(
                    f"{self.spec.connector} takes {name!r} as {type_name(info.dtype)}, and it is "
                    f"{type_name(dtype)} here. If dropping what does not fit is meant: "
                    f"input_type_override={{{name!r}: {type_name(info.dtype)!r}}}."
                )
        return info.dtype

    def _shape(self, target: str, members: Mapping[str, Item], info: TensorInfo) -> Shape:
        """The shape of a tensor in each pixel or row: that of a single array band, or of a stack."""
        names, shapes = list(members), [item.shape for item in members.values()]
        tiled = members[names[0]].tiled
        lead = 3 if tiled else 1
        found = arrangements(shapes, tiled=tiled, flat=not tiled or self.spec.array_dims is None)
        if not found:
            raise OptionError(
                f"{listed(names)} cannot be stacked in the input {target!r}: they have the shapes "
                f"{', '.join(str(list(shape)) for shape in shapes)} in each pixel. Give them inputs of "
                "their own."
            )
        if self.spec.array_dims and tiled and not members.keys() & set(self.spec.input_shapes or ()):
            found.sort(key=len, reverse=True)  # steps and bands, also of a single band
        if self.table and target not in members and found[0] == ():
            found.reverse()  # the only column of those that are stacked
        shape = found[0]
        if info.shape is None:
            return shape
        rank, wanted = len(info.shape), info.shape[lead:]
        if rank >= lead:
            if fitting := [each for each in found if fits(wanted, each)]:
                return fitting[0]
            # A scalar band is forwarded with a last axis of 1 (Earth Engine's guide), unless the model has no
            # room for it. A property has none of its own.
            if math.prod(shape) == 1 and all(side in (None, 1) for side in wanted):
                return (1,) * len(wanted)
        if rank < lead or (rank == lead and tiled):
            raise no_room(self.spec, target, info)
        if len(wanted) == 1 and len(shape) <= 1:
            raise OptionError(
                f"The input {target!r} of {self.spec.connector} takes {wanted[0]} channels, and "
                f"{listed(names)} have {sum(map(math.prod, shapes))}. {self.there} Say which the "
                f"model wants, in its order: {self.order}=[...]."
            )
        raise OptionError(
            f"The input {target!r} of {self.spec.connector} is {info}, and {listed(names)} would be sent "
            f"with the shape {shape} in each {'pixel' if lead == 3 else 'row'}. {self.there}"
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
