"""Names, types and parsing of the options of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, TypedDict

import xarray as xr

from xee_tf.classes import CONFIDENCE, Classes
from xee_tf.display import quoted
from xee_tf.errors import OptionError
from xee_tf.models.types import PixelType, pixel_type
from xee_tf.options import LIMITS, Spelling, flag, integer, is_number, read_names

__all__ = [
    "MODEL_SPELLING",
    "REPLACED",
    "ModelKeywords",
    "ModelUnit",
    "lead_axes",
    "read_inputs",
    "read_name",
    "read_outputs",
    "read_properties",
    "read_shapes",
    "read_types",
]

# Options of Earth Engine that do not exist here, and what replaces them.
REPLACED = LIMITS | {
    "scale": "predictions have the pixels of the image; proj=('EPSG:32633', 30) with fix_input_proj=True "
    "resamples it for the model",
    "crs": "predictions have the CRS of the image; if it has none, set it with predict_image(crs=...)",
    "crsTransform": "predictions have the grid of the image; see proj and fix_input_proj",
}

MODEL_SPELLING = Spelling("model options", replaced=REPLACED)
"""The names of the options of a model, in ``ee.Model`` and here."""


ModelUnit = Literal["tile", "pixel"]
"""What a model predicts at once from an image: tiles, or single pixels."""

_OUTPUTS = ("forest", "water")  # an example for error messages
_OF_CLASSES = ("values", "colors", "nodata")  # options of a map of classes, as in `xee_tf.class_map`


def lead_axes(unit: ModelUnit) -> int:
    """Return the number of axes before the value of a pixel: (n, height, width) or (n,)."""
    return 3 if unit == "tile" else 1


class ModelKeywords(TypedDict, total=False):
    """Types of the options of a model, as users pass them; `ModelSpec` contains the parsed values."""

    unit: ModelUnit
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
    normalize: xr.Dataset | Mapping[str, Any] | None


def read_name(value: Any, name: str) -> str:
    """Check a name."""
    if not isinstance(value, str) or not value:
        raise OptionError(f"{name} must be a name; got {value!r}.")
    return value


def _mapping(value: Any, name: str, example: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise OptionError(f"{name} must be a mapping such as {example}; got {value!r}.")
    return value


def read_inputs(value: Any, name: str) -> dict[str, str]:
    """Parse a mapping of bands to inputs of the model."""
    found = _mapping(value, name, "{'B4': 'near_infrared'}")
    return {band: read_name(tensor, f"{name}[{band!r}]") for band, tensor in found.items()}


def read_types(value: Any, name: str) -> dict[str, PixelType]:
    """Parse types of bands and properties: ``{"B4": "float32"}``."""
    found = _mapping(value, name, "{'B4': 'float32'}")
    types = {key: pixel_type(kind, f"{name}[{key!r}]") for key, kind in found.items()}
    return {key: replace(kind, dimensions=None) for key, kind in types.items()}


def read_shapes(value: Any, name: str) -> dict[str, tuple[int, ...]]:
    """Parse shapes of array bands: ``{"series": [12]}``."""
    found = _mapping(value, name, "{'series': [12]}")
    return {key: _shape(shape, f"{name}[{key!r}]") for key, shape in found.items()}


def _shape(value: Any, name: str) -> tuple[int, ...]:
    sides = [value] if is_number(value) else value
    if not isinstance(sides, Sequence) or isinstance(sides, str | bytes):
        raise OptionError(f"{name} must be a shape such as [12]; got {value!r}.")
    return tuple(integer(1)(side, f"{name}[{axis}]") for axis, side in enumerate(sides))


def read_outputs(value: Any, name: str) -> dict[str, PixelType]:
    """Parse outputs: ``["p"]``, ``{"p": "float32"}`` or ``{"p": {"type": ..., "dimensions": ...}}``."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(read_names(value, name, _OUTPUTS), PixelType())
    found = _mapping(value, name, "{'p': {'type': 'float', 'dimensions': 1}}")
    if not found:
        raise OptionError(
            f"{name} is empty: declare at least one output, or omit it for a model with a signature."
        )
    read_names(list(found), name, _OUTPUTS)
    return {key: _output(info, f"{name}[{key!r}]") for key, info in found.items()}


def read_properties(value: Any, name: str) -> dict[str, PixelType]:
    """Parse outputs of rows, which cannot be maps of classes."""
    found = read_outputs(value, name)
    if maps := [key for key, kind in found.items() if kind.classes is not None]:
        raise OptionError(
            f"{name}[{maps[0]!r}] cannot have 'argmax', which output_bands has. Declare the probabilities, "
            f"{{{maps[0]!r}: {{'shape': {list(found[maps[0]].shape or ())}}}}}, and use numpy.argmax."
        )
    return found


def _output(info: Any, name: str) -> PixelType:
    if not isinstance(info, Mapping) or "precision" in info:
        info = {"type": info}
    if "argmax" in info:
        return _class_map(info, name)
    if unknown := set(info) - {"type", "dimensions", "shape"}:
        raise OptionError(
            f"{name} has unknown fields {quoted(sorted(unknown))}; expected 'type', 'dimensions' or 'shape', "
            "or 'argmax'."
        )
    found = PixelType() if info.get("type") is None else pixel_type(info["type"], name)
    if info.get("dimensions") is not None:
        dimensions = pixel_type({"precision": "float", "dimensions": info["dimensions"]}, name).dimensions
        found = replace(found, dimensions=dimensions)
    if info.get("shape") is None:
        return found
    shape = _shape(info["shape"], f"{name}['shape']")
    if found.dimensions not in (None, len(shape)):
        raise OptionError(f"{name}: shape {list(shape)} does not match dimensions {found.dimensions}.")
    return replace(found, dimensions=len(shape), shape=shape)


def _class_map(info: Mapping[str, Any], name: str) -> PixelType:
    """Parse ``{"argmax": ["forest", "water"], "values": [1, 2], "colors": ..., "confidence": True}``."""
    if unknown := set(info) - {"argmax", *_OF_CLASSES, "confidence"}:
        raise OptionError(
            f"{name} has the fields {quoted(sorted(unknown))}, which a map of classes cannot have; expected "
            f"'argmax', {quoted(_OF_CLASSES)} or 'confidence'. Its type depends on the numbers in 'values'."
        )
    own = {key: info[key] for key in _OF_CLASSES if key in info}
    classes = Classes.of(info["argmax"], **own, within=name, named="argmax")
    second = info.get("confidence", False)
    if not (isinstance(second, str) and second):
        second = CONFIDENCE if flag(second, f"{name}['confidence']") else None
    return PixelType(dimensions=1, shape=(len(classes.names),), classes=classes, confidence=second)
