"""The repr of a model."""

from __future__ import annotations

from itertools import starmap

from xee_tf.connector import Connector
from xee_tf.display import abbreviated, by
from xee_tf.geometry import Size
from xee_tf.georef import crs_name
from xee_tf.models.function import FunctionConnector
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import PixelType, type_name
from xee_tf.remote import RemoteConnector

__all__ = ["spec_rows"]


def spec_rows(spec: ModelSpec) -> list[tuple[str, str]]:
    """Return the repr of a model as rows (name, value): its signature, if it is known, and its options.

    The model is not loaded, and no server is contacted.
    """
    rows = _signature_rows(spec.connector)
    overlap = spec.input_overlap_size
    if spec.unit == "pixel":
        rows.append(("unit", "pixel"))
    tiles = [] if spec.input_tile_size is None else [f"{by(*spec.input_tile_size.xy)} px"]
    if overlap != Size(x=0, y=0):
        tiles.append(f"with {by(*overlap.xy)} px overlap along each edge")
    if spec.output_tile_size is not None:
        tiles.append(f"to {by(*spec.output_tile_size.xy)} px")
    if tiles:
        rows.append(("tiles", " ".join(tiles)))
    if spec.proj is not None:
        use = "resampled" if spec.fix_input_proj else "not resampled"
        rows.append(("projection", f"{crs_name(spec.proj.crs)}, {spec.proj.transform[0]:g} per pixel, {use}"))
    if spec.inputs is not None:
        rows.append(("inputs", abbreviated([f"{band} → {name}" for band, name in spec.inputs.items()])))
    elif spec.bands is not None:
        into = f" → {spec.input_name}" if spec.input_name else ""
        rows.append(("inputs", abbreviated(list(spec.bands)) + into))
    if spec.array_dims is not None:
        rows.append(("array dims", abbreviated(list(spec.array_dims)) or "none, all are mapped over"))
    elif not spec.input_shapes:
        rows.append(("array dims", _default_dims(spec)))
    if spec.input_shapes:
        shapes = [f"{name}: {', '.join(map(str, shape))}" for name, shape in spec.input_shapes.items()]
        rows.append(("array bands", abbreviated(shapes)))
    if spec.input_properties:
        rows.append(("properties", abbreviated(list(spec.input_properties))))
    if spec.input_type_override:
        rows.append(("types", abbreviated(list(starmap(_typed, spec.input_type_override.items())))))
    if spec.normalize is not None:
        names = [name for name in spec.normalize if spec.bands is None or name in spec.bands]
        rows.append(("normalized", abbreviated(names)))
    for title, outputs in (("outputs", spec.output_bands), ("output properties", spec.output_properties)):
        if outputs is not None:
            rows.append((title, abbreviated(list(starmap(_typed, outputs.items())))))
    return rows


def _signature_rows(connector: Connector) -> list[tuple[str, str]]:
    """Describe the inputs and outputs of the model itself; nothing for a function, which has no signature."""
    if isinstance(connector, FunctionConnector):
        return []
    signature = connector.known_signature()
    if signature is None:
        until = "the server is asked" if isinstance(connector, RemoteConnector) else "the model is loaded"
        return [("signature", f"unknown until {until}")]
    if signature.inputs is None and signature.outputs is None:
        return [("signature", "unknown: the model does not declare it")]
    return [
        (title, "unknown" if tensors is None else abbreviated(starmap("{}: {}".format, tensors.items())))
        for title, tensors in (("model inputs", signature.inputs), ("model outputs", signature.outputs))
    ]


def _default_dims(spec: ModelSpec) -> str:
    """Describe the default for dimensions other than y and x; see `find_array_dims`."""
    if isinstance(spec.connector, FunctionConnector):
        return "none, all are mapped over"
    return "those in the shapes of its inputs; others are mapped over"


def _typed(name: str, declared: PixelType) -> str:
    if declared.classes is not None:
        second = "" if declared.confidence is None else f", {declared.confidence}"
        return f"{name}: argmax of {len(declared.classes.names)} classes{second}"
    text = name if declared.dtype is None else f"{name}: {type_name(declared.dtype)}"
    if declared.shape:
        return f"{text} ({', '.join(map(str, declared.shape))})"
    if declared.dimensions:
        return f"{text} ({declared.dimensions} dimension{'s' if declared.dimensions > 1 else ''})"
    return text
