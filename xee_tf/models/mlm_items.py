"""Describe models as STAC items with the extension Machine Learning Model (MLM)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xee_tf.connector import TensorInfo
from xee_tf.display import quoted
from xee_tf.errors import ModelError, OptionError, shorten
from xee_tf.models.keras import ExportedKerasConnector, KerasConnector
from xee_tf.models.onnx import OnnxBytesConnector, OnnxConnector, onnx_order
from xee_tf.models.onnx_axes import axis_order
from xee_tf.models.saved_model import SavedModelConnector
from xee_tf.models.spec import ModelSpec
from xee_tf.models.types import STRING
from xee_tf.options import read_names

__all__ = ["describe_model"]

_SCHEMA = "https://stac-extensions.github.io/mlm/v1.5.0/schema.json"
_NAMES = {"N": "batch", "H": "height", "W": "width", "T": "time", "C": "channel"}
_LAST = {1: "N", 2: "NC", 3: "NHW", 4: "NHWC", 5: "NHWTC"}  # the order of axes by their number
_LAST_OF_PIXELS = {1: "N", 2: "NC", 3: "NTC"}
# The name of the framework and the type of the artifact.
_KINDS: dict[type, tuple[str, str]] = {
    OnnxConnector: ("ONNX", "onnx"),
    OnnxBytesConnector: ("ONNX", "onnx"),
    KerasConnector: ("Keras", "keras"),
    ExportedKerasConnector: ("Keras", "keras"),
    SavedModelConnector: ("TensorFlow", "tf.saved_model"),
}

Classes = Mapping[int, str] | Sequence[str]


def describe_model(
    spec: ModelSpec,
    id: str,
    *,
    href: str | None,
    tasks: Sequence[str],
    classes: Classes | None,
    bbox: Sequence[float],
    interval: Sequence[str],
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
    if len(bbox) != 4 or len(interval) != 2:
        raise OptionError(
            "bbox must be (west, south, east, north) in degrees and interval two dates such as "
            f"'2020-01-01T00:00:00Z'; got {shorten(repr(bbox))} and {shorten(repr(interval))}."
        )
    names = list(read_names(tasks, "tasks", ("semantic-segmentation", "regression")))
    signature = connector.signature()
    if not signature.inputs or not signature.outputs:
        raise ModelError(f"{connector} has no signature of its inputs and outputs.")
    order = onnx_order(connector)
    bands = _bands(spec, signature.inputs)
    west, south, east, north = bbox
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
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
        "id": id,
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "bbox": list(bbox),
        "properties": {
            "datetime": None,
            "start_datetime": interval[0],
            "end_datetime": interval[1],
            "mlm:name": id,
            "mlm:architecture": "unknown",
            "mlm:tasks": names,
            "mlm:framework": framework,
            "mlm:input": [
                _input(spec, name, info, bands[name], order) for name, info in signature.inputs.items()
            ],
            "mlm:output": _outputs(spec, signature.outputs, classes, names, order),
            **(properties or {}),
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
    orders = _LAST_OF_PIXELS if spec.unit == "pixel" else _LAST
    last = orders.get(len(shape))
    if last is None:
        raise ModelError(
            f"{spec.connector} has a tensor with {len(shape)} axes, {info}; expected at most {len(orders)}."
        )
    axes = (order and axis_order(order, len(shape))) or last
    sides = dict(zip(last, shape, strict=True))
    lengths = [known.get(axis, -1) if sides[axis] is None else sides[axis] for axis in axes]
    dtype = "other" if info.dtype is None or info.dtype in (STRING, bool) else str(info.dtype)
    dims = [channel if axis == "C" else _NAMES[axis] for axis in axes]
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
        "input": _structure(spec, info, order, known),
    }
    scales = spec.normalize or {}
    if bands and scales.keys() >= set(bands):
        described["value_scaling"] = [
            {"type": "z-score", "mean": offset, "stddev": scale}
            for offset, scale in (scales[band] for band in bands)
        ]
    return described


def _outputs(
    spec: ModelSpec,
    outputs: Mapping[str, TensorInfo],
    classes: Classes | None,
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
        classes = channels
    found = []
    for name, info in outputs.items():
        shown = next(iter(declared)) if len(outputs) == len(declared) == 1 else name
        known = {"C": len(channels)} if channels else {}
        channel = "class" if classes else "channel"
        each: dict[str, Any] = {
            "name": shown,
            "tasks": list(tasks),
            "result": _structure(spec, info, order, known, channel),
        }
        if channels and regression:
            each["bands"] = channels
        if classes:
            pairs = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
            each["classification:classes"] = [{"value": int(key), "name": str(text)} for key, text in pairs]
        found.append(each)
    return found
