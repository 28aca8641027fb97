"""Identify a prediction by everything that its values depend on, to resume only the same prediction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

import numpy as np
import xarray as xr

from xee_tf.georef import GeoRef, band_nodata, read_georef
from xee_tf.identity import Content, RunIdentity, array_attributes, run_identity
from xee_tf.models import ModelSpec
from xee_tf.predict.image import Prediction

__all__ = ["identify_file", "identify_run", "identify_store", "result_georef"]

# Options of a prediction that affect values. Properties and the georeference are compared by value instead.
_OPTIONS = ("blend", "augment", "resampling", "output_grid")
# Fields of a model that do not affect the values of an image.
_WITHOUT_EFFECT = frozenset({"connector", "output_multiplier", "output_properties"})
_MODEL = "the model"
_UNKNOWN_MODEL = "give its class a method __dask_tokenize__ that returns the name of its version"


def identify_run(spec: ModelSpec, prediction: Prediction, identity: str | None = None) -> RunIdentity:
    """Return the identity of a prediction; see `xee_tf.identity.IdentityOptions` for `identity`."""
    caller, predicted = prediction.caller, prediction.dataset
    georef = result_georef(predicted)
    content = caller.connector.content()
    name = f"the {caller.connector}"
    advice = _UNKNOWN_MODEL if content is None else f"the code, data or weights of {name} differ"
    parts: dict[str, Any] = {_MODEL: Content(content, name, advice)}
    for each in fields(spec):
        if each.name not in _WITHOUT_EFFECT:
            parts[f"the model's option {each.name}"] = getattr(spec, each.name)
    for name in _OPTIONS:
        parts[f"the option {name}"] = getattr(prediction.options, name)
    for name, value in sorted(caller.properties.items()):
        parts[f"the property {name!r} of the image, which is an input of the model,"] = Content.of(value)
    parts["the bands"] = list(prediction.variables)
    parts["the grid of the result"] = _grid(georef)
    parts["the grid of the image"] = _grid(prediction.georef)
    for key, band in predicted.data_vars.items():
        shown = array_attributes(band.dtype, band.dims, band.shape, band.chunks)
        shown["_FillValue"] = repr(band.attrs.get("_FillValue"))
        parts[f"the output {key!r}"] = Content(repr((shown, band.chunks)), shown)
    for dim in predicted.dims:
        if dim in predicted.coords and dim not in (georef.x_dim, georef.y_dim):
            parts[f"the coordinate {dim!r}"] = Content.of(np.asarray(predicted.coords[dim].values))
    for name, variable in prediction.variables.items():
        parts[f"nodata of the input {name!r}"] = band_nodata(variable, name)
        inner = list(map(str, prediction.bands[name].dims))
        parts[f"the dimensions of the input {name!r} that go to the model as a whole"] = inner
    # Sizes and types that may come from the signature of the model.
    parts["the model's tiles"] = caller.tiles
    for feed in caller.feeds:
        parts[f"the model's input {feed.input!r}"] = feed
    for output in caller.outputs:
        parts[f"the model's output {output.name!r}"] = output
    return run_identity(parts, prediction.variables, identity)


def identify_file(run: RunIdentity, **options: Any) -> RunIdentity:
    """Return the identity of a file of predictions, which also depends on options of the file.

    It does not contain the name of the model, which may be a path: files are given to others.
    """
    parts = {name: replace(part, shown="") if name == _MODEL else part for name, part in run.parts.items()}
    return RunIdentity({**parts, **_option_parts(options)})


def identify_store(run: RunIdentity, **options: Any) -> RunIdentity:
    """Return the identity of a Zarr store of predictions, which also depends on options of the store."""
    return RunIdentity({**run.parts, **_option_parts(options)})


def _option_parts(options: Mapping[str, Any]) -> dict[str, Content]:
    return {f"the option {name}": Content(str(value), str(value)) for name, value in options.items()}


def result_georef(predicted: xr.Dataset) -> GeoRef:
    """Return the georeference of the result; y and x are the last dimensions of its bands."""
    y_dim, x_dim = next(iter(predicted.data_vars.values())).dims[-2:]
    named = predicted.copy(deep=False)
    named.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return read_georef(named)


def _grid(georef: GeoRef) -> str:
    return f"{georef.crs_text} with the transform {list(georef.affine)[:6]}"
