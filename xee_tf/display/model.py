"""A model at a glance: where it is, what it is sent and what it gives. Nothing is loaded for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from xee_tf.display.html import heading, rows_html
from xee_tf.display.text import Facts, aligned, head_of
from xee_tf.geometry import Size
from xee_tf.georef.crs import crs_name
from xee_tf.models.function import FunctionConnector
from xee_tf.models.types import type_name

if TYPE_CHECKING:
    from xee_tf.models.options import Declared
    from xee_tf.models.spec import Model

__all__ = ["model_html", "model_rows", "model_text"]


def model_text(model: Model) -> str:
    """The repr of a `Model`."""
    rows = model_rows(model)
    return f"<xee_tf.Model {model.connector}>" + (f"\n{aligned(rows)}" if rows else "")


def model_html(model: Model) -> str:
    """``_repr_html_`` of a `Model`."""
    return f"<div>{heading('Model', str(model.connector))}{rows_html(model_rows(model))}</div>"


def model_rows(model: Model) -> Facts:
    """What was said of a model, as (name, value)."""
    rows: Facts = []
    overlap = model.input_overlap_size
    tiles = [] if model.input_tile_size is None else [f"{_size(model.input_tile_size)} px"]
    if overlap != Size(x=0, y=0):
        tiles.append(f"with {_size(overlap)} px more along each edge")
    if model.output_tile_size is not None:
        tiles.append(f"to {_size(model.output_tile_size)} px")
    if tiles:
        rows.append(("tiles", " ".join(tiles)))
    if model.proj is not None:
        where = "sampled in" if model.fix_input_proj else "of the model"
        rows.append(
            ("projection", f"{crs_name(model.proj.crs)}, {model.proj.transform[0]:g} a pixel, {where}")
        )
    if model.inputs is not None:
        rows.append(("inputs", _names([f"{band} → {name}" for band, name in model.inputs.items()])))
    elif model.bands is not None:
        into = f" → {model.input_name}" if model.input_name else ""
        rows.append(("inputs", _names(list(model.bands)) + into))
    if model.array_dims is not None:
        rows.append(("array dims", _names(list(model.array_dims)) or "none, all are mapped over"))
    elif not model.input_shapes:
        rows.append(("array dims", _default_dims(model)))
    if model.input_shapes:
        shapes = [f"{name}: {', '.join(map(str, shape))}" for name, shape in model.input_shapes.items()]
        rows.append(("array bands", _names(shapes)))
    if model.input_properties:
        rows.append(("properties", _names(list(model.input_properties))))
    if model.input_type_override:
        rows.append(("types", _names([_output(item) for item in model.input_type_override.values()])))
    for title, outputs in (("outputs", model.output_bands), ("properties out", model.output_properties)):
        if outputs is not None:
            rows.append((title, _names([_output(item) for item in outputs])))
    return rows


def _default_dims(model: Model) -> str:
    """What becomes of dimensions beside y and x of which nothing was said; see `find_array_dims`."""
    if isinstance(model.connector, FunctionConnector):
        return "none, all are mapped over"
    return "those in the shapes of its inputs; others are mapped over"


def _output(item: Declared) -> str:
    text = item.name if item.dtype is None else f"{item.name}: {type_name(item.dtype)}"
    if item.shape:
        return f"{text} ({', '.join(map(str, item.shape))})"
    return f"{text} ({item.dimensions} dimensions)" if item.dimensions else text


def _size(size: Size) -> str:
    return f"{size.x:,} × {size.y:,}"


def _names(names: list[str]) -> str:
    shown, more = head_of(names, 12)
    return ", ".join([*shown, *([f"{more:,} more"] if more else [])])
