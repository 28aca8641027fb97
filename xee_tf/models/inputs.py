"""Assign bands, properties and columns to the inputs of a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xee_tf.connector import Signature, TensorInfo
from xee_tf.errors import ModelError, OptionError
from xee_tf.models.feeds import Feed, Item, Shape, arrangements, fits
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector
from xee_tf.models.options import lead_axes
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING, type_name
from xee_tf.options import did_you_mean
from xee_tf.training import offsets_and_scales

__all__ = [
    "check_overrides",
    "check_required",
    "group_inputs",
    "listed",
    "missing_error",
    "of_tiles",
    "plan_feeds",
    "tile_axes_error",
]


def check_overrides(spec: ModelSpec, names: Collection[str], source: str) -> None:
    """Raise an error if `input_type_override` contains a name not found in `source`, an image or a table."""
    for name in spec.input_type_override or ():
        if name not in names:
            raise OptionError(
                f"input_type_override contains {name!r}, not found in the {source}. Available: "
                f"{listed(list(names))}.{did_you_mean(name, names)}"
            )


def check_required(spec: ModelSpec, names: Collection[Hashable], available: str, *, table: bool) -> None:
    """Raise an error if bands, properties or columns in the options of a model are not in `names`.

    `available` is a sentence that lists the bands and properties of the image or the columns of the table.
    """
    required = (*(() if table else spec.bands or ()), *spec.input_properties, *(spec.inputs or ()))
    if missing := [name for name in required if name not in names]:
        raise missing_error(spec, missing, available, names, table=table)


def missing_error(
    spec: ModelSpec, names: Sequence[str], available: str, candidates: Iterable[Hashable], *, table: bool
) -> OptionError:
    """Build the error for bands, properties or columns that are missing; see `check_required`."""
    source = "table" if table else "image"
    known = [name for name in candidates if isinstance(name, str)]
    hints = "".join(dict.fromkeys(did_you_mean(name, known) for name in names))
    return OptionError(
        f"{spec.connector} needs {listed(names)}, not found in the {source}. {available}{hints}"
    )


def plan_feeds(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item], *, table: bool
) -> tuple[Feed, ...]:
    """Assign `items`, the bands and properties of an image or the columns of a table, to the inputs.

    Raises
    ------
    OptionError
        If a required item is missing, or the assignment is ambiguous; the message lists the choices.
    """
    plan = _Plan(spec, signature.inputs, items, table)
    return tuple(plan.feed(target, members) for target, members in plan.groups().items())


def group_inputs(
    spec: ModelSpec, signature: Signature, items: Mapping[str, Item]
) -> Mapping[str, tuple[str, ...]]:
    """Return the bands and properties of an image that go to each input, whatever their shapes.

    Raises
    ------
    OptionError
        As in `plan_feeds`.
    """
    return _Plan(spec, signature.inputs, items, table=False).groups()


@dataclass(frozen=True)
class _Plan:
    """Items, the inputs that they can go to, and the errors that list both."""

    spec: ModelSpec
    inputs: Mapping[str, TensorInfo] | None  # None: unknown
    items: Mapping[str, Item]
    table: bool

    @property
    def source(self) -> str:
        return "table" if self.table else "image"

    @property
    def option(self) -> str:
        return "input_properties" if self.table else "bands"

    @property
    def available(self) -> str:
        bands = [name for name, item in self.items.items() if item.tiled or self.table]
        others = [name for name in self.items if name not in bands]
        found = f"The {self.source} has {'the columns' if self.table else 'the bands'} {listed(bands)}"
        return found + (f" and the properties {listed(others)}." if others else ".")

    @property
    def available_inputs(self) -> str:
        return f"Available: {'; '.join(f'{name}: {info}' for name, info in (self.inputs or {}).items())}."

    def missing_error(self, names: Sequence[str]) -> OptionError:
        return missing_error(self.spec, names, self.available, self.items, table=self.table)

    def groups(self) -> dict[str, tuple[str, ...]]:
        """Return the members of each input."""
        spec = self.spec
        chosen = spec.input_properties if self.table else spec.bands
        extra = () if self.table else spec.input_properties
        check_required(spec, self.items, self.available, table=self.table)
        if spec.inputs is not None:
            groups: dict[str, tuple[str, ...]] = {}
            for name, into in spec.inputs.items():
                groups[into] = (*groups.get(into, ()), name)
            # Items with the same name as an input are optional in `inputs`.
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
                raise OptionError(
                    f"{spec.connector} has no input for {listed(mains)}. {self.available_inputs}"
                )
            if set(left) <= set(self.items) and (not chosen or set(left) == set(chosen)):
                return self._checked({**{name: (name,) for name in left}, **own})
            if len(left) > 1 and chosen:
                raise OptionError(
                    f"{self.option}={list(chosen)} does not match the inputs of {spec.connector}, "
                    f"{listed(left)}, and could be assigned to any of them. Use input_name={left[0]!r} to "
                    f"stack all in one input, or inputs={{{chosen[0]!r}: {left[0]!r}, ...}} to assign each."
                )
            if len(left) > 1:
                raise self.missing_error([name for name in left if name not in self.items])
            (target,) = left
        return self._checked({target: mains, **own})

    def _checked(self, groups: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if self.inputs is not None:
            if unknown := [name for name in groups if name not in self.inputs]:
                raise OptionError(
                    f"{self.spec.connector} has no input {listed(unknown)}. {self.available_inputs}"
                )
            if missing := [name for name in self.inputs if name not in groups]:
                raise self.missing_error(missing)
        return groups

    def feed(self, target: str, names: tuple[str, ...]) -> Feed:
        """Plan an input of the model from its members."""
        members = {name: self.items[name] for name in names}
        info = (self.inputs or {}).get(target, TensorInfo())
        if len({item.tiled for item in members.values()}) > 1:
            raise OptionError(
                f"{listed(names)} cannot be stacked in the input {target!r}: some are bands with pixels, "
                "others are properties with one value. Use separate inputs."
            )
        for name, item in members.items():
            declared = (self.spec.input_shapes or {}).get(name)
            if declared is not None and declared not in (item.shape, item.shape or (1,)):
                raise OptionError(
                    f"input_shapes is {list(declared)} for {name!r}, but its shape in the {self.source} is "
                    f"{list(item.shape)}."
                )
        types = self.spec.input_type_override or {}
        overrides = {name: types[name] for name in names if name in types}
        own = {name: (types[name].dtype if name in types else None) or members[name].dtype for name in names}
        scales = {}
        if self.spec.normalize is not None:
            numbers = [name for name, dtype in own.items() if dtype != STRING]
            pairs = offsets_and_scales(self.spec.normalize, numbers).T.tolist()
            scales = dict(zip(numbers, map(tuple, pairs), strict=True))
            own |= dict.fromkeys(numbers, np.dtype("float32"))
        dtype, shape = self._dtype(own, info), self._shape(target, members, info)
        return Feed(target, members, overrides, dtype, shape, scales)

    def _dtype(self, own: Mapping[str, np.dtype[Any]], info: TensorInfo) -> np.dtype[Any]:
        """Return the dtype of a tensor: that of the model's input, or one that can represent all members."""
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
                    f"{self.spec.connector} takes {name!r} as {type_name(info.dtype)}, but it is "
                    f"{type_name(dtype)} in the {self.source}. To convert it with loss, use "
                    f"input_type_override={{{name!r}: {type_name(info.dtype)!r}}}."
                )
        return info.dtype

    def _shape(self, target: str, members: Mapping[str, Item], info: TensorInfo) -> Shape:
        """Return the shape of a tensor in each pixel or row, of a single array band or of a stack."""
        names, shapes = list(members), [item.shape for item in members.values()]
        tiled = members[names[0]].tiled
        lead = lead_axes(self.spec.unit) if tiled else 1
        found = arrangements(shapes, tiled=tiled, flat=not tiled or self.spec.array_dims is None)
        if not found:
            raise OptionError(
                f"{listed(names)} cannot be stacked in the input {target!r}: their shapes in each pixel are "
                f"{', '.join(str(list(shape)) for shape in shapes)}. Use separate inputs."
            )
        if self.spec.array_dims and tiled and not members.keys() & set(self.spec.input_shapes or ()):
            found.sort(key=len, reverse=True)  # steps and bands, also for a single band
        if self.table and target not in members and found[0] == ():
            found.reverse()  # a stack of a single column
        shape = found[0]
        if info.shape is None:
            return shape
        rank, expected = len(info.shape), info.shape[lead:]
        if rank >= lead:
            if fitting := [each for each in found if fits(expected, each)]:
                return fitting[0]
            # Earth Engine's guide: a scalar band is sent with a last axis of 1. It is omitted if the input
            # does not have it. A property does not have that axis.
            if math.prod(shape) == 1 and all(side in (None, 1) for side in expected):
                return (1,) * len(expected)
        if rank < lead or rank == lead == lead_axes("tile"):
            raise tile_axes_error(self.spec, target, info)
        have = f"{listed(names)} {'has' if len(names) == 1 else 'have'}"
        if len(expected) == 1 and len(shape) <= 1:
            raise OptionError(
                f"The input {target!r} of {self.spec.connector} takes {expected[0]} channels, but "
                f"{have} {sum(map(math.prod, shapes))}. {self.available} Select those that the "
                f"model takes, in its order: {self.option}=[...]."
            )
        raise OptionError(
            f"The input {target!r} of {self.spec.connector} is {info}, but {have} the shape {shape} "
            f"in each {'pixel' if tiled else 'row'}. {self.available}"
            f"{of_tiles(self.spec, info) if tiled else ''}"
        )


def tile_axes_error(spec: ModelSpec, target: str, info: TensorInfo) -> ModelError:
    """Build the error for a model of single pixels or rows that is used with tiles."""
    return ModelError(
        f"The input {target!r} of {spec.connector} is {info}, without axes for the height and width of a "
        "tile. Pass unit='pixel' for a model that takes single pixels of an image, as (n, band) or (n, "
        "steps, band); models of rows also predict from tables."
    )


def of_tiles(spec: ModelSpec, info: TensorInfo) -> str:
    """Return hints for a model of tiles or with channels first that is used with ``unit="pixel"``."""
    rank = len(info.shape or ()) if spec.unit == "pixel" else 0
    connector, hint = spec.connector, ""
    if rank > 2 and isinstance(connector, OnnxConnector | OnnxBytesConnector) and not connector.runtime.order:
        hint = " The bands are read last: for a model of (n, band, time), pass channels='first'."
    if rank > lead_axes("tile"):
        hint += " If the model takes tiles, (n, height, width, ...), omit unit='pixel'."
    return hint


def listed(names: Sequence[Hashable]) -> str:
    """Format names for an error, at most twelve of them."""
    shown = [repr(name) for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "") if shown else "none"
