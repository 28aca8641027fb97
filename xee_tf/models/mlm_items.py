"""Describe models as STAC items with the extension Machine Learning Model (MLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xee_tf.connector import TensorInfo
from xee_tf.display import counted, quoted
from xee_tf.errors import ModelError, OptionError
from xee_tf.models.axis_orders import axis_name, axis_order, last_order
from xee_tf.models.keras import ExportedKerasConnector, KerasConnector
from xee_tf.models.mlm_checks import (
    ClassNames,
    read_bbox,
    read_class_names,
    read_further_properties,
    read_href,
    read_id,
    read_interval,
    read_tasks,
)
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector, onnx_order
from xee_tf.models.saved_model import SavedModelConnector
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING
from xee_tf.training import offsets_and_scales

__all__ = ["describe_model"]

_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
# The name of the framework and the type of the artifact.
_KINDS: dict[type, tuple[str, str]] = {
    OnnxConnector: ("ONNX", "onnx"),
    OnnxBytesConnector: ("ONNX", "onnx"),
    KerasConnector: ("Keras", "keras"),
    ExportedKerasConnector: ("Keras", "keras"),
    SavedModelConnector: ("TensorFlow", "tf.saved_model"),
}


def describe_model(
    spec: ModelSpec,
    id: str,
    *,
    href: str | None,
    tasks: Sequence[str],
    classes: ClassNames | None,
    bbox: Sequence[float],
    interval: Sequence[Any],
    properties: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """Return the item of a model; see `xee_tf.Model.to_mlm`.

    Raises
    ------
    OptionError
        If an option is not valid, or the bands of the model are unknown.
    ModelError
        If the model is not in a file, or cannot be opened.
    """
    name, names, further = read_id(id), read_tasks(tasks), read_further_properties(properties)
    (start, end), (box, geometry) = read_interval(interval), read_bbox(bbox)
    named = None if classes is None else read_class_names(classes)
    href = None if href is None else read_href(href)
    connector = spec.connector
    kind = _KINDS.get(type(connector))
    if kind is None:
        raise ModelError(
            f"{connector} is not a model in a file, which a STAC item describes: use a model of "
            "Model.from_onnx, Model.from_keras or Model.from_saved_model."
        )
    framework, artifact = kind
    if href is None:
        files = getattr(connector, "files", None)
        if files is None:
            raise OptionError(f"{connector} is in memory: pass the path or URL of its file as href=.")
        href = str(files)
    signature = connector.signature()
    if not signature.inputs or not signature.outputs:
        raise ModelError(f"{connector} has no signature of its inputs and outputs.")
    order = onnx_order(connector)
    bands = _bands(spec, signature.inputs)
    asset: dict[str, Any] = {
        "href": href,
        "type": f"application/octet-stream; framework={artifact.split('.')[0]}",
        "roles": ["mlm:model"],
        "mlm:artifact_type": artifact,
    }
    if every := list(dict.fromkeys(band for members in bands.values() for band in members)):
        asset["bands"] = [{"name": band} for band in every]
    return {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": [_SCHEMA],
        "id": name,
        "geometry": geometry,
        "bbox": box,
        "properties": {
            "datetime": None,
            "start_datetime": start,
            "end_datetime": end,
            "mlm:name": name,
            "mlm:architecture": "unknown",
            "mlm:tasks": names,
            "mlm:framework": framework,
            "mlm:input": [
                _input(spec, key, info, bands[key], order) for key, info in signature.inputs.items()
            ],
            "mlm:output": _outputs(spec, signature.outputs, named, names, order),
            **further,
        },
        "assets": {"model": asset},
        "links": [],
    }


def _bands(spec: ModelSpec, inputs: Mapping[str, TensorInfo]) -> dict[str, list[str]]:
    """Return the bands or columns of each input, in the order in which they are stacked."""
    found: dict[str, list[str]] = {name: [] for name in inputs}
    if spec.inputs is not None:
        for band, name in spec.inputs.items():
            found.setdefault(name, []).append(band)
        return found
    main = [name for name in inputs if name not in spec.input_properties]
    if len(main) != 1 and spec.input_name is None:
        return found | {name: [name] for name in main}
    members = list(spec.bands or spec.input_properties)
    if not members:
        raise OptionError(
            f"The bands of {spec.connector} are unknown: create the model with bands=[...], in the order in "
            "which it takes them."
        )
    return found | {spec.input_name or main[0]: members}


def _structure(
    spec: ModelSpec, info: TensorInfo, order: str | None, known: Mapping[str, int], channel: str = "channel"
) -> dict[str, Any]:
    """Return shape, dim_order and data_type; `known` are lengths that the shape may not contain."""
    shape = info.shape or (None,)
    last = last_order(len(shape), pixels=spec.unit == "pixel")
    if last is None:
        most = 3 if spec.unit == "pixel" else 5
        raise ModelError(
            f"{spec.connector} has a tensor with {len(shape)} axes, {info}; expected at most {most}."
        )
    axes = (order and axis_order(order, len(shape))) or last
    sides = dict(zip(last, shape, strict=True))
    lengths = [known.get(axis, -1) if sides[axis] is None else sides[axis] for axis in axes]
    dtype = "other" if info.dtype is None or info.dtype in (STRING, bool) else str(info.dtype)
    dims = [channel if axis == "C" else axis_name(axis) for axis in axes]
    return {"shape": lengths, "dim_order": dims, "data_type": dtype}


def _input(
    spec: ModelSpec, name: str, info: TensorInfo, bands: Sequence[str], order: str | None
) -> dict[str, Any]:
    known = {"C": len(bands)} if bands else {}
    if spec.input_tile_size is not None:
        height, width = spec.input_tile_size.with_margin(spec.input_overlap_size).shape
        known |= {"H": height, "W": width}
    described: dict[str, Any] = {
        "name": name,
        "bands": list(bands),
        "input": _structure(spec, info, order, known, "bands" if bands else "channel"),
    }
    if spec.normalize is not None and info.dtype != STRING:
        members = list(bands) or [name]
        offsets_and_scales(spec.normalize, members)  # or an error, as in predictions
        described["value_scaling"] = [
            {"type": "z-score", "mean": offset, "stddev": scale}
            for offset, scale in (spec.normalize[member] for member in members)
        ]
    return described


def _outputs(
    spec: ModelSpec,
    outputs: Mapping[str, TensorInfo],
    classes: Sequence[tuple[int, str]] | None,
    tasks: Sequence[str],
    order: str | None,
) -> list[dict[str, Any]]:
    declared = spec.output_bands or spec.output_properties or {}
    if classes is not None and len(outputs) > 1:
        raise OptionError(
            f"classes are those of one output, but {spec.connector} has {quoted(list(outputs))}."
        )
    channels = list(declared) if len(outputs) == 1 and len(declared) > 1 else []
    probable = [kind.classes.names for kind in declared.values() if kind.classes is not None]
    if len(outputs) == len(probable) == 1:
        channels = list(probable[0])
    regression = set(tasks) == {"regression"}
    if classes is None and channels and not regression:
        classes = list(enumerate(channels))
    found = []
    for name, info in outputs.items():
        shown = next(iter(declared)) if len(outputs) == len(declared) == 1 else name
        known = {"C": len(channels)} if channels else {}
        channel = "bands" if channels and regression else "class" if classes else "channel"
        result = _structure(spec, info, order, known, channel)
        length = dict(zip(result["dim_order"], result["shape"], strict=True)).get(channel, -1)
        if classes and length > 1 and len(classes) != length:
            raise OptionError(
                f"classes has {counted(len(classes), 'name')}, {quoted([text for _, text in classes])}, but "
                f"the output {name!r} of {spec.connector} has {length} channels: name one class for each."
            )
        each: dict[str, Any] = {"name": shown, "tasks": list(tasks), "result": result}
        if channels and regression:
            each["bands"] = channels
        if classes:
            each["classification:classes"] = [{"value": value, "name": text} for value, text in classes]
        found.append(each)
    return found
