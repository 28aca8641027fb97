"""The options of a model: Earth Engine's spelling, ours, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypedDict

import numpy as np

from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models.projection import Projection
from xee_tf.models.types import Range, pixel_range, pixel_type
from xee_tf.options import Spelling

__all__ = [
    "EE_NAMES",
    "MODEL_SPELLING",
    "PREDICT_SPELLING",
    "Declared",
    "ModelOptions",
    "PredictOptions",
    "read_options",
]

#: Earth Engine's names of the parameters of ``ee.Model``'s constructors, and ours.
EE_NAMES = {
    "inputProperties": "input_properties",
    "inputTypeOverride": "input_type_override",
    "inputShapes": "input_shapes",
    "proj": "proj",
    "fixInputProj": "fix_input_proj",
    "inputTileSize": "input_tile_size",
    "inputOverlapSize": "input_overlap_size",
    "outputTileSize": "output_tile_size",
    "outputBands": "output_bands",
    "outputProperties": "output_properties",
    "outputMultiplier": "output_multiplier",
}


_REPLACED = {
    "scale": "predictions have the pixels of the image; proj=('EPSG:32633', 30) with fix_input_proj=True "
    "resamples it for the model",
    "crs": "predictions have the CRS of the image, which predict_image(crs=...) names where it has none",
    "crsTransform": "predictions have the grid of the image; see proj and fix_input_proj",
    "maxPixels": "there is no limit; leave it out",
    "tileScale": "the chunks of the raster set the memory of a task; leave it out",
}

MODEL_SPELLING = Spelling("model options", aliases=EE_NAMES, replaced=_REPLACED)
"""How the options of a model are written: ``ee.Model`` and ours."""


class ModelOptions(TypedDict, total=False):
    """The options that every constructor of `Model` takes; `Model` says what each one does."""

    inputs: Mapping[str, str] | None
    input_name: str | None
    bands: Sequence[str] | None
    input_properties: Sequence[str] | None
    input_type_override: Mapping[str, Any] | None
    input_shapes: Mapping[str, Sequence[int]] | None
    array_dims: Sequence[str] | str | None
    proj: Any
    fix_input_proj: bool | None
    input_tile_size: int | Sequence[int] | None
    input_overlap_size: int | Sequence[int] | None
    overlap_is_total: bool
    output_tile_size: int | Sequence[int] | None
    output_bands: Mapping[str, Any] | Sequence[str] | str | None
    output_properties: Mapping[str, Any] | Sequence[str] | str | None
    output_multiplier: float | None


_OF_THE_MODEL = "it is an option of the model, as in Model.from_keras(model, {}=...)"

PREDICT_SPELLING = Spelling(
    "prediction options",
    replaced={key: value for key, value in _REPLACED.items() if key != "crs"}
    | {name: _OF_THE_MODEL.format(name) for name in ModelOptions.__annotations__},
)
"""How the options of a prediction are written."""


class PredictOptions(TypedDict, total=False):
    """The options of a prediction from an image; see `xee_tf.predict.image.predict_image`."""

    properties: Mapping[str, Any] | None
    batch_size: int | None
    blend: Literal["crop", "hann"]
    skip_masked: bool
    augment: Literal["d4"] | None
    resampling: Literal["nearest", "bilinear"]
    output_grid: Literal["image", "model"]
    crs: Any
    transform: Any


@dataclass(frozen=True)
class Declared:
    """What a user said of one output, or of the type of an input.

    Parameters
    ----------
    name : str
    dtype : numpy.dtype or None
        None: as the model gives it.
    dimensions : int or None
        0 for a scalar, 1 for a vector in each pixel, and so on.
    shape : tuple of int or None
        Of an array in each pixel.
    limits : (int, int) or None
        The declared range of an integer; values of bands and of inputs are clamped to it.
    """

    name: str
    dtype: np.dtype[Any] | None = None
    dimensions: int | None = None
    shape: tuple[int, ...] | None = None
    limits: Range | None = None


def read_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check options and make them what the fields of `Model` hold.

    Parameters
    ----------
    options : mapping
        In our spelling or in Earth Engine's; None stands for a default. Values that were read already stay
        as they are.

    Raises
    ------
    OptionError
        That names the option, the value and what was expected.

    Examples
    --------
    >>> read_options({"inputTileSize": [144, 144], "inputOverlapSize": [8, 8]})
    {'input_tile_size': Size(x=144, y=144), 'input_overlap_size': Size(x=8, y=8)}
    """
    given = MODEL_SPELLING.read(options, ModelOptions.__annotations__)
    given = {name: value for name, value in given.items() if value is not None}
    total = given.pop("overlap_is_total", False)
    found = {name: _READERS[name](value, name) for name, value in given.items()}
    if total and "input_overlap_size" in found:
        found["input_overlap_size"] = _half(found["input_overlap_size"])
    return found


def _half(total: Size) -> Size:
    if total.x % 2 or total.y % 2:
        raise OptionError(
            f"input_overlap_size={total.xy} with overlap_is_total=True is shared by two edges: it must be "
            "even."
        )
    return Size(x=total.x // 2, y=total.y // 2)


def _names(value: Any, name: str) -> tuple[str, ...]:
    if isinstance(value, str):
        value = [value]
    ordered = isinstance(value, Iterable) and not isinstance(value, Mapping | Set | bytes)
    names = list(value) if ordered else []
    if not ordered or not all(isinstance(item, str) for item in names):
        raise OptionError(f"{name} must be a list of names; got {value!r}.")
    if "" in names:
        raise OptionError(f"{name} has an empty name: {names}.")
    if len(set(names)) != len(names):
        raise OptionError(f"{name} has a name twice: {names}.")
    return tuple(map(str, names))


def _some_names(value: Any, name: str) -> tuple[str, ...]:
    if not (names := _names(value, name)):
        raise OptionError(f"{name} is empty: give at least one name, or leave it out for the default.")
    return names


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name} must be a name; got {value!r}.")
    return value


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool | np.bool_):
        raise OptionError(f"{name} must be True or False; got {value!r}.")
    return bool(value)


def _mapping(value: Any, name: str, example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(f"{name} must be a mapping such as {example}; got {value!r}.")
    return value


def _inputs(value: Any, name: str) -> dict[str, str]:
    found = _mapping(value, name, "{'B4': 'near_infrared'}")
    return {band: _text(tensor, f"{name}[{band!r}]") for band, tensor in found.items()}


def _types(value: Any, name: str) -> dict[str, Declared]:
    found = _mapping(value, name, "{'B4': 'float32'}")
    return {key: _type(key, kind, f"{name}[{key!r}]") for key, kind in found.items()}


def _type(key: str, kind: Any, name: str) -> Declared:
    if isinstance(kind, Declared):
        return kind
    return Declared(key, pixel_type(kind, name)[0], limits=pixel_range(kind, name))


def _shapes(value: Any, name: str) -> dict[str, tuple[int, ...]]:
    found = _mapping(value, name, "{'series': [12]}")
    return {key: _shape(shape, f"{name}[{key!r}]") for key, shape in found.items()}


def _shape(value: Any, name: str) -> tuple[int, ...]:
    sides = [value] if isinstance(value, int) else value
    if not isinstance(sides, Sequence) or not all(
        isinstance(side, int | np.integer) and not isinstance(side, bool) and side > 0 for side in sides
    ):
        raise OptionError(f"{name} must be a shape such as [12]; got {value!r}.")
    return tuple(map(int, sides))


def _multiplier(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and number >= 1):
        raise OptionError(
            f"{name} is how many times more data the model gives than it takes, and cannot be less than 1; "
            f"got {value!r}."
        )
    return number


def _outputs(value: Any, name: str) -> tuple[Declared, ...]:
    """``["p"]``, ``{"p": "float32"}`` or ``{"p": {"type": ..., "dimensions": ...}}``."""
    if isinstance(value, tuple) and value and all(isinstance(output, Declared) for output in value):
        _names([output.name for output in value], name)
        return value
    if not isinstance(value, Mapping):
        return tuple(Declared(output) for output in _some_names(value, name))
    found = _mapping(value, name, "{'p': {'type': 'float', 'dimensions': 1}}")
    if not found:
        raise OptionError(
            f"{name} is empty: name what the model gives, or leave it out where the model tells."
        )
    _names(list(found), name)
    return tuple(_output(key, info, f"{name}[{key!r}]") for key, info in found.items())


def _output(key: str, info: Any, name: str) -> Declared:
    if not isinstance(info, Mapping) or "precision" in info:
        info = {"type": info}
    if unknown := set(info) - {"type", "dimensions", "shape"}:
        raise OptionError(
            f"{name} has no field {sorted(unknown)}; known are 'type', 'dimensions' and 'shape'."
        )
    dtype, dimensions = (None, None) if info.get("type") is None else pixel_type(info["type"], name)
    if info.get("dimensions") is not None:
        (_, dimensions) = pixel_type({"precision": "float", "dimensions": info["dimensions"]}, name)
    shape = None if info.get("shape") is None else _shape(info["shape"], f"{name}['shape']")
    if shape is not None and dimensions is not None and len(shape) != dimensions:
        raise OptionError(
            f"{name}: shape {list(shape)} has not the {dimensions} dimensions that are said beside it."
        )
    limits = None if info.get("type") is None else pixel_range(info["type"], name)
    return Declared(key, dtype, len(shape) if shape is not None else dimensions, shape, limits)


_READERS: dict[str, Callable[[Any, str], Any]] = {
    "inputs": _inputs,
    "input_name": _text,
    "bands": _some_names,
    "input_properties": _names,
    "input_type_override": _types,
    "input_shapes": _shapes,
    "array_dims": _names,
    "proj": Projection.of,
    "fix_input_proj": _flag,
    "input_tile_size": Size.from_xy,
    "input_overlap_size": partial(Size.from_xy, least=0),
    "output_tile_size": Size.from_xy,
    "output_bands": _outputs,
    "output_properties": _outputs,
    "output_multiplier": _multiplier,
}
