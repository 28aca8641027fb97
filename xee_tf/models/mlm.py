"""Read STAC items that describe models with the Machine Learning Model extension (MLM)."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from xee_tf.display import quoted
from xee_tf.errors import ModelError, OptionError, excerpt
from xee_tf.models.axis_orders import is_last
from xee_tf.models.kinds import is_path, model_kind
from xee_tf.models.mlm_fields import (
    INPUT_TYPES,
    OUTPUT_TYPES,
    axis_order_of,
    check_types,
    input_options,
    output_options,
    require_plain,
    tile_options,
)
from xee_tf.models.model_files import model_errors
from xee_tf.options import flag
from xee_tf.storage import Location, PathLike

__all__ = ["MlmModel", "read_mlm"]

Kind = Literal["onnx", "keras", "saved_model"]

_ROLE = "mlm:model"
_EXPORT = "export it with torch.onnx.export and pass the path of the ONNX file: path='model.onnx'"


@dataclass(frozen=True)
class MlmModel:
    """A model that an item describes.

    Parameters
    ----------
    path : path-like
        The path or URL of its file or folder.
    kind : {"onnx", "keras", "saved_model"}
        The format of the file.
    order : str
        The order of the axes of its first input.
    options : mapping of str to object
        Options of `ModelSpec`.
    """

    path: PathLike
    kind: Kind
    order: str
    options: Mapping[str, Any]


def read_mlm(
    item: Any,
    given: Mapping[str, Any],
    *,
    path: Any = None,
    asset: str | None = None,
    preprocessed: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> MlmModel:
    """Read an item; see `xee_tf.Model.from_mlm`. `given` are options that users set themselves.

    Raises
    ------
    ModelError
        If the item does not describe a model that can be used.

    Examples
    --------
    >>> item = {
    ...     "id": "crops",
    ...     "properties": {
    ...         "mlm:input": [
    ...             {
    ...                 "name": "image",
    ...                 "bands": ["B4", "B3"],
    ...                 "input": {
    ...                     "shape": [-1, 2, 64, 64],
    ...                     "dim_order": ["batch", "channel", "height", "width"],
    ...                 },
    ...                 "value_scaling": [{"type": "scale", "value": 1e4}],
    ...             }
    ...         ],
    ...         "mlm:output": [{"name": "p", "result": {"shape": [-1, 1, 64, 64], "data_type": "float32"}}],
    ...     },
    ...     "assets": {"model": {"href": "/models/crops.onnx", "roles": ["mlm:model"]}},
    ... }
    >>> read_mlm(item, {}).options["input_tile_size"], read_mlm(item, {}).order
    ((64, 64), 'NCHW')
    """
    flag(preprocessed, "preprocessed")
    found, base = _load(item, storage_options)
    name = f"The item {excerpt(found.get('id', 'without an id'))}"
    properties, assets = found.get("properties"), found.get("assets")
    if not isinstance(properties, Mapping) or not isinstance(assets, Mapping):
        raise ModelError(f"{name} is not a STAC item: it has no properties and assets.")
    inputs, outputs = (_objects(properties, f"mlm:{key}", name) for key in ("input", "output"))
    for objects, types in ((inputs, INPUT_TYPES), (outputs, OUTPUT_TYPES)):
        for each in objects:
            check_types(each, types, name)
    if path is None:
        path, kind = _artifact(assets, asset, properties.get("mlm:framework"), base, name)
    else:
        kind = _kind_of_path(path)
    orders = [axis_order_of(each.get("input") or {}, name) for each in inputs]
    if not preprocessed:
        require_plain(inputs, name)
    tiles = [order for order in orders if "H" in order]
    rows = not tiles and given.get("unit") != "pixel"
    options = input_options(inputs, given, name, rows=rows, preprocessed=preprocessed)
    if tiles:
        at = orders.index(tiles[0])
        options |= tile_options(inputs[at]["input"], orders[at], given, name)
    order = (tiles or orders)[0]
    if kind != "onnx" and not is_last(order):
        raise ModelError(
            f"{name} has a model whose axes have the order {order}. Tiles are sent channels last, as NHWC or "
            "NHWTC, except to ONNX files."
        )
    declared = output_options(outputs, given, name, rows=rows)
    options["output_properties" if rows else "output_bands"] = declared
    return MlmModel(path, kind, order, options)


def _load(item: Any, storage_options: Mapping[str, Any] | None) -> tuple[Mapping[str, Any], str]:
    """Return an item as a mapping, and the location that its paths are relative to."""
    base = ""
    if is_path(item) and str(item):
        location = Location.of(item, storage_options)
        try:
            with model_errors(location):
                data = location.read_bytes()
        except (IsADirectoryError, NotADirectoryError) as error:
            found = "a folder" if isinstance(error, IsADirectoryError) else "inside a file"
            raise ModelError(
                f"{location} is {found}, not a STAC item: pass the path of its JSON file. A SavedModel in a "
                "folder is loaded by Model.from_saved_model."
            ) from None
        try:
            item, base = json.loads(data), location.url
        except ValueError as error:
            raise ModelError(f"{location} is not a STAC item: it is not JSON ({error}).") from None
    elif hasattr(item, "to_dict"):
        item = item.to_dict()
    if not isinstance(item, Mapping):
        raise OptionError(
            f"item must be a STAC item, its JSON as a mapping, or the path of a JSON file; got "
            f"{excerpt(item)}."
        )
    links = item.get("links")
    for link in links if isinstance(links, list) else []:
        if not base and isinstance(link, Mapping) and link.get("rel") == "self":
            base = str(link.get("href", ""))
    return item, base


def _objects(properties: Mapping[str, Any], key: str, item: str) -> list[Mapping[str, Any]]:
    found = properties.get(key)
    if not isinstance(found, list) or not found or not all(isinstance(each, Mapping) for each in found):
        raise ModelError(
            f"{item} has no list {key} of objects, which the extension MLM requires; got {excerpt(found)}."
        )
    return found


def _artifact(
    assets: Mapping[str, Any], chosen: Any, framework: Any, base: str, item: str
) -> tuple[str, Kind]:
    """Return the path and the kind of the model in the assets of an item."""
    models = {
        key: asset
        for key, asset in assets.items()
        if isinstance(asset, Mapping) and isinstance(asset.get("roles"), list) and _ROLE in asset["roles"]
    }
    if chosen is not None:
        if not isinstance(chosen, str) or chosen not in models:
            raise OptionError(
                f"asset must be one of the models of the item, {quoted(list(models)) or 'none'}; got "
                f"{excerpt(chosen)}."
            )
        models = {chosen: models[chosen]}
    for key, each in models.items():
        if not isinstance(each.get("href"), str) or not each["href"]:
            raise ModelError(
                f"{item} has no path or URL in the field 'href' of the asset {key!r}; got "
                f"{excerpt(each.get('href'))}. Pass the file of the model as path=."
            )
    if not models:
        raise ModelError(
            f"{item} has no asset with the role {_ROLE!r}. Its assets are {quoted(list(assets), 8)}."
        )
    kinds = {key: _kind(asset, framework) for key, asset in models.items()}
    known = [key for key, kind in kinds.items() if kind is not None]
    if len(known) > 1:
        raise ModelError(
            f"{item} has several models, {quoted(known)}: pass one of them, such as asset={known[0]!r}."
        )
    if not known:
        href = next(iter(models.values()))["href"]
        fix = f"If it is a PyTorch model, {_EXPORT}"
        raise ModelError(
            f"{item} has the model {excerpt(href)}, which is not an ONNX, Keras or SavedModel file. {fix}."
        )
    href, kind = str(models[known[0]]["href"]), kinds[known[0]]
    assert kind is not None
    if posixpath.basename(href) == "saved_model.pb":
        href = posixpath.dirname(href)
    return _resolved(href, base), kind


def _kind(asset: Mapping[str, Any], framework: Any) -> Kind | None:
    """Return the kind of a model, by its suffix, its type, or the framework of the item."""
    href = str(asset["href"]).partition("?")[0].lower()
    found = model_kind(href)
    if found == "onnx" or found == "keras":
        return found
    if href.endswith("saved_model.pb"):
        return "saved_model"
    declared = [str(asset.get(key) or "").lower() for key in ("mlm:artifact_type", "type")]
    text = " ".join([*declared, str(asset.get("mlm:framework") or framework or "").lower()])
    if found == "pytorch" or "torch" in " ".join(declared):
        return None
    if "onnx" in text:
        return "onnx"
    if "saved_model" in text or "savedmodel" in text:
        return "saved_model"
    return "keras" if "keras" in text else "saved_model" if "tensorflow" in text else None


def _kind_of_path(path: Any) -> Kind:
    """Return the kind of a model that users pass as a path."""
    if not is_path(path) or not str(path):
        raise OptionError(f"path must be the path or URL of the file of the model; got {excerpt(path)}.")
    found = model_kind(path)
    if found == "onnx" or found == "keras":
        return found
    if found is not None:
        fix = _EXPORT if found == "pytorch" else "pass an ONNX or Keras file, or the folder of a SavedModel"
        raise ModelError(f"path={str(path)!r} is not an ONNX, Keras or SavedModel file: {fix}.")
    return "saved_model"


def _resolved(href: str, base: str) -> str:
    """Return a path that may be relative to the item."""
    if "://" in href or os.path.isabs(href) or not base:
        return href
    scheme, separator, rest = base.rpartition("://")
    return scheme + separator + posixpath.normpath(posixpath.join(posixpath.dirname(rest), href))
