"""``xee-tf explore``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import xarray as xr
from cyclopts import Group, Parameter

import xee_tf
from xee_tf.cli.command import command
from xee_tf.cli.groups import RasterOptions
from xee_tf.cli.loading import model_at, model_options
from xee_tf.cli.options import Crs, FilePath, Name, Names, Number, Size, Value, parse_names
from xee_tf.cli.outcome import Outcome
from xee_tf.cli.rasters import open_rasters
from xee_tf.display import quoted
from xee_tf.errors import OptionError
from xee_tf.models import ModelUnit
from xee_tf.predict import Blend
from xee_tf.serving import stop_signal

__all__ = ["explore"]

_MODEL = Group("Prediction", sort_key=3)
_IMAGE, _PREDICTION = "image", "prediction"  # names of layers


@command(RasterOptions, xee_tf.explore, xee_tf.Model, xee_tf.Model.predict_image, cluster=True)
def explore(
    rasters: list[FilePath],
    /,
    *,
    rgb: Names = None,
    band: Annotated[str | None, Name] = None,
    cmap: Annotated[str | None, Name] = None,
    vmin: Annotated[int | float | None, Value] = None,
    vmax: Annotated[int | float | None, Value] = None,
    opacity: Annotated[int | float | None, Value] = None,
    resampling: Literal["nearest", "bilinear"] | None = None,
    basemap: Annotated[str | None, Parameter(metavar="ADDRESS")] = None,
    band_names: Names = None,
    crs: Crs = None,
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 512,
    max_pixels: Annotated[int, Parameter(metavar="PIXELS")] = 1 << 18,
    cache_bytes: Annotated[int, Parameter(metavar="BYTES")] = 1 << 28,
    port: Annotated[int, Number] = 0,
    model: Annotated[FilePath | None, Parameter(metavar="MODEL", group=_MODEL)] = None,
    bands: Annotated[Names, Parameter(group=_MODEL)] = None,
    input_name: Annotated[str | None, Parameter(metavar="NAME", group=_MODEL)] = None,
    array_dims: Annotated[Names, Parameter(negative="--no-array-dims", group=_MODEL)] = None,
    unit: Annotated[ModelUnit, Parameter(group=_MODEL)] = "tile",
    input_tile_size: Annotated[Size, Parameter(group=_MODEL)] = None,
    input_overlap_size: Annotated[Size, Parameter(group=_MODEL)] = None,
    output_tile_size: Annotated[Size, Parameter(group=_MODEL)] = None,
    output_bands: Annotated[Names, Parameter(metavar="NAME[=TYPE][,NAME...]", group=_MODEL)] = None,
    class_map: Annotated[Names, Parameter(metavar="[VALUE:]NAME[=COLOR][,...]", group=_MODEL)] = None,
    signature: Annotated[str | None, Parameter(metavar="NAME", group=_MODEL)] = None,
    batch_size: Annotated[int | None, Parameter(metavar="NUMBER", group=_MODEL)] = None,
    blend: Annotated[Blend, Parameter(group=_MODEL)] = "crop",
    augment: Annotated[Literal["d4"] | None, Parameter(group=_MODEL)] = None,
) -> Iterator[Outcome]:
    """Show rasters on one grid, and what a model predicts from them, on a map in a browser.

    The map is served on 127.0.0.1 until Ctrl-C or SIGTERM. Its tiles are computed when they are looked at,
    and nothing is written. With --model, the prediction is a layer above the rasters.

    Example: xee-tf explore scene.tif --rgb B4,B3,B2

    Parameters
    ----------
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files. Bands are named as by "xee-tf predict".
    rgb
        Three bands to show as red, green and blue. Default: the bands named red, green and blue, if there are
        such. With a model, the layer that has the bands shows them.
    band
        The band to show: of the rasters or of the prediction. Default: the first one. Classes have their
        colors and names.
    vmin
        The value of the first color. Default: the percentile 2 of a sample. With a model, it holds for the
        layers that --rgb and --band name; for all layers if there are none.
    vmax
        The value of the last color, for the same layers. Default: the percentile 98 of a sample.
    opacity
        From 0 to 1, of the prediction if there is one. Default: 1. The map has a slider for it.
    basemap
        What is below: osm (OpenStreetMap), or an address such as "https://tiles.test/{z}/{x}/{y}.png".
        Default: none; then nothing is fetched from the internet.
    port
        The port of the map. 0 selects a free port.
    model
        A model on disk, in a bucket or on a server, as "xee-tf predict" takes it.
    bands
        The bands that the model takes. Default: all.
    input_name
        The input in which the bands are stacked, for a model with several inputs.
    array_dims
        Dimensions, such as time, that the model takes as a whole, in the order of its input. Default: the
        dimensions of the model's input.
    unit
        What the model takes: tiles, or single pixels.
    input_overlap_size
        Pixels added along each edge of a tile; the model takes the tile size plus twice the overlap.
    output_bands
        Names of the outputs, with types that differ from the model's own: forest=uint8,water. Default: the
        outputs of the model.
    class_map
        Show the most probable class. Names of the classes in the order of the channels, with their values,
        colors, or both, as for "xee-tf predict".
    signature
        Signature of a SavedModel or of a model on a server. Default: serving_default.
    """
    image = open_rasters(rasters, chunk, crs, parse_names(band_names))
    layers = {_IMAGE: image}
    of_model: dict[str, Any] = {
        "bands": bands,
        "array_dims": array_dims,
        "output_bands": output_bands,
        "class_map": class_map,
        "input_name": input_name,
        "unit": unit,
        "input_tile_size": input_tile_size,
        "input_overlap_size": input_overlap_size,
        "output_tile_size": output_tile_size,
    }
    how: dict[str, Any] = {"batch_size": batch_size, "blend": blend, "augment": augment}
    if model is not None:
        opened = model_at(model, signature=signature, **model_options(image, **of_model))
        layers[_PREDICTION] = opened.predict_image(image, merge=False, crs=crs, **how)
    else:
        _check_no_model({**of_model, **how, "signature": signature})
    named = {
        "rgb": _owners(layers, "rgb", parse_names(rgb)),
        "band": _owners(layers, "band", None if band is None else [band]),
    }
    limited = {name for owners in named.values() for name in owners} or {*layers}
    options: dict[str, Any] = {
        "rgb": named["rgb"],
        "band": {name: each for name, [each] in named["band"].items()},
        "vmin": dict.fromkeys(limited, vmin),
        "vmax": dict.fromkeys(limited, vmax),
        "opacity": {[*layers][-1]: opacity},
    }
    if model is None:  # messages need not name the layer
        options = {name: values.get(_IMAGE) for name, values in options.items()}
    with (
        stop_signal() as stop,
        xee_tf.explore(
            layers if model is not None else image,
            **options,
            cmap=cmap,
            resampling=resampling,
            basemap=basemap,
            max_pixels=max_pixels,
            cache_bytes=cache_bytes,
            port=port,
            crs=crs,
        ) as shown,
    ):
        yield Outcome(f"Open {shown.url} in a browser. Stop with Ctrl-C.", {"url": shown.url})
        stop.wait()


def _check_no_model(given: Mapping[str, Any]) -> None:
    """Check that no option of a prediction is given."""
    defaults = {"unit": "tile", "blend": "crop"}
    for name, value in given.items():
        if value != defaults.get(name):
            raise OptionError(f"{name} is for a prediction: pass model=, too, or omit it.")


def _owners(layers: Mapping[str, xr.Dataset], option: str, bands: list[str] | None) -> dict[str, list[str]]:
    """Return the layers that have the bands of an option; if there is only one layer, that one."""
    if bands is None:
        return {}
    owners = [name for name, layer in layers.items() if len(layers) == 1 or set(bands) <= {*layer.data_vars}]
    if not owners:
        known = "; ".join(f"the {name} has {quoted(map(str, layer))}" for name, layer in layers.items())
        raise OptionError(f"{option} must be bands of one layer; got {quoted(bands)}, but {known}.")
    return dict.fromkeys(owners, bands)
