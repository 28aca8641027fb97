"""Predictions from a raster: what ``ee.Model.predictImage`` does, lazily."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine

from xee_tf.blocks import BandRule, BlockLayout, lay_out_blocks, pixel_bytes
from xee_tf.connector import Signature
from xee_tf.errors import OptionError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import (
    GRID_MAPPING,
    GeoRef,
    band_nodata,
    can_mask,
    grid_mappings,
    image_dataset,
    name_dims,
    plane_array,
    raster_variables,
    read_georef,
    write_georef,
)
from xee_tf.graph import ArraySpec, arrays_of_blocks, chunk_grids
from xee_tf.models import Item, ModelSpec, check_overrides, fill_outside, find_array_dims, group_inputs
from xee_tf.names import check_key, check_variables
from xee_tf.options import check_flags
from xee_tf.predict.averaging import SPREAD, Blend
from xee_tf.predict.calling import TileCaller, tile_caller
from xee_tf.predict.options import PredictOptions
from xee_tf.predict.resampling import from_projection, to_projection
from xee_tf.predict.work import TileWork
from xee_tf.sidecars import BandSpec

__all__ = ["RENAME", "Prediction", "predict_image"]

RENAME = "Give the output another name in output_bands, or rename what the image has: image.rename(...)."
"""What to do about an output whose name cannot be used."""

_NAME = "xee-tf-predict"


@dataclass(frozen=True)
class Prediction:
    """A lazy prediction, and what the model sees of the image: all that the values depend on.

    Parameters
    ----------
    dataset : Dataset
    caller : TileCaller
        The model with its inputs, outputs, properties and sizes of tiles.
    bands : mapping from str to BandSpec
        The bands of the image that the model gets, with the dimensions that it takes as a whole.
    variables : mapping from str to DataArray
        The same, in the order of the model, before they are resampled.
    outputs : tuple of BandSpec
        The bands of the result.
    georef : GeoRef
        Where the image lies.
    options : PredictOptions
    """

    dataset: xr.Dataset
    caller: TileCaller
    bands: Mapping[str, BandSpec]
    variables: Mapping[str, xr.DataArray]
    outputs: tuple[BandSpec, ...]
    georef: GeoRef
    options: PredictOptions


def predict_image(
    spec: ModelSpec, image: xr.Dataset | xr.DataArray, options: PredictOptions, *, merge: bool
) -> Prediction:
    """Predict every pixel of a raster, tile by tile and lazily; see `xee_tf.Model.predict_image`."""
    check_flags(merge=merge)
    dataset = image_dataset(image, split="band" not in (spec.array_dims or ()))
    georef = read_georef(dataset, options.crs, options.transform)
    values = dict(image.attrs if options.properties is None else options.properties)
    place, source = georef, dataset
    if spec.fix_input_proj and spec.proj is not None:
        source, place = to_projection(dataset, georef, spec.proj, options.resampling)
    signature = spec.connector.signature()
    variables = _variables(dataset, georef)
    sampled = variables if source is dataset else _variables(source, place)
    bands = _bands(spec, signature, sampled, place, values)
    caller = tile_caller(spec, signature, bands, values, batch_size=options.batch_size)
    bands = [band for band in bands if band.name in caller.bands]
    maskable = any(can_mask(np.dtype(band.dtype), band.nodata) for band in bands)
    outputs = _outputs(caller, options.blend, options.augment, maskable)
    _check_names(outputs, dataset, place, merge)
    predicted = _predict(caller, bands, outputs, sampled, source, place, options)
    own_grid = place is not georef or caller.tiles.output != caller.tiles.core
    if place is not georef and options.output_grid == "image":
        predicted = from_projection(predicted, place, georef, options.resampling)
        own_grid = False
    if own_grid and merge:
        raise OptionError(
            "The predictions have a grid of their own (another scale or projection) and cannot be bands "
            "of the same Dataset: say merge=False."
        )
    if not own_grid:
        predicted = _on_grid(predicted, dataset, georef, merge)
    return Prediction(
        predicted,
        caller,
        {band.name: band for band in bands},
        {name: variables[name] for name in caller.bands},
        outputs,
        georef,
        options,
    )


def _on_grid(predicted: xr.Dataset, dataset: xr.Dataset, georef: GeoRef, merge: bool) -> xr.Dataset:
    """Predictions on the grid of the image, beside its bands where they are merged."""
    added = {name: predicted[name].variable for name in predicted.data_vars}
    # The image may lie elsewhere than its own coordinates and attributes say: crs=, transform=, units.
    merged = write_georef(dataset.assign(added), georef, georef.x_dim, georef.y_dim)
    if merge:
        return merged
    alone = merged[list(added)].drop_attrs(deep=False)
    return name_dims(alone, georef.x_dim, georef.y_dim)


def _variables(dataset: xr.Dataset, georef: GeoRef) -> dict[str, xr.DataArray]:
    """The variables of an image that are rasters, by their names as text."""
    return {str(key): band for key, band in raster_variables(dataset, georef.x_dim, georef.y_dim)}


def _bands(
    spec: ModelSpec,
    signature: Signature,
    variables: Mapping[str, xr.DataArray],
    georef: GeoRef,
    properties: Mapping[str, Any],
) -> list[BandSpec]:
    """The bands, with those of their dimensions that go to the model as a whole."""
    spatial = (georef.y_dim, georef.x_dim)
    if not variables:
        raise OptionError(
            f"The image has no bands: no variable has the dimensions {georef.y_dim} and {georef.x_dim}."
        )
    further = {
        name: {dim: size for dim, size in band.sizes.items() if dim not in spatial}
        for name, band in variables.items()
    }
    items = {name: Item(np.dtype(object)) for name in spec.input_properties if name in properties}
    items |= {name: Item(band.dtype, tiled=True) for name, band in variables.items()}
    check_overrides(spec, {**items, **properties}, "image")
    groups = group_inputs(spec, signature, items)
    array_dims = find_array_dims(spec, signature, further, groups)
    together = {
        name: {dim for other in members for dim in further.get(other, ())}
        for members in groups.values()
        for name in members
    }
    bands = []
    for name, variable in variables.items():
        own = further[name]
        # A band without any of the dimensions is scalar; with some, it has one step along the others.
        inner = [dim for dim in array_dims if dim in together.get(name, own)]
        inner = inner if own.keys() & set(inner) else []
        bands.append(
            BandSpec(
                name,
                cast(tuple[str, ...], tuple(inner)),  # xarray takes anything hashable
                tuple(own.get(dim, 1) for dim in inner),
                dtype=variable.dtype.str,
                nodata=band_nodata(variable, name),
            )
        )
    return bands


def _outputs(caller: TileCaller, blend: Blend, augment: str | None, maskable: bool) -> tuple[BandSpec, ...]:
    """The bands of the result."""
    averaged = [
        name for name, wanted in (("blend='hann'", blend == "hann"), ("augment='d4'", augment)) if wanted
    ]
    spreads = [replace(output, name=output.name + SPREAD) for output in caller.outputs if augment]
    outputs = []
    for output in (*caller.outputs, *spreads):
        dtype, limits = output.dtype, output.limits
        if dtype.kind == "b":
            dtype, limits = np.dtype(np.uint8), (0, 1)
        if dtype.kind not in "iuf":
            raise OptionError(f"The output {output.name!r} is {dtype}: a raster holds numbers.")
        if averaged and dtype.kind != "f":
            raise OptionError(
                f"{averaged[0]} averages predictions, and {output.name!r} is {dtype}: declare a float type "
                "in output_bands if an average of it means something, for example of probabilities."
            )
        fill: float | None = math.nan if maskable else None
        if maskable and dtype.kind != "f":
            dtype, fill = fill_outside(dtype, limits)
        outputs.append(BandSpec(output.name, output.dims, output.shape, dtype=dtype.str, default=fill))
    tile = caller.tiles.sent
    if augment is not None and tile.x != tile.y:
        raise OptionError(
            f"augment='d4' turns tiles, which must be square then; these are {tile.x} x {tile.y} pixels."
        )
    return tuple(outputs)


def _check_names(outputs: Sequence[BandSpec], dataset: xr.Dataset, place: GeoRef, merge: bool) -> None:
    """Refuse outputs that would replace a coordinate or a dimension, or one another."""
    names = [check_key(output.name, "output") for output in outputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"Two outputs would be named {twice[0]!r}. Name them differently in output_bands.")
    mappings = grid_mappings(dataset, place.x_dim, place.y_dim)
    taken = {*dataset.dims, *dataset.coords, *mappings, GRID_MAPPING, place.x_dim, place.y_dim}
    own = {output.name: output.dims for output in outputs}
    check_variables(own, taken, RENAME, "output")
    bands = set(dataset.data_vars) if merge else set()
    if there := [name for name in names if name in bands]:
        raise OptionError(
            f"The image has bands of the names {there} already. Give the outputs other names with "
            "output_bands, or say merge=False."
        )
    for name, dims in own.items():
        if clash := bands.intersection(dims):
            raise OptionError(
                f"The output {name!r} has a dimension {clash.pop()!r}, and the image has a band of that "
                f"name. {RENAME}"
            )


def _predict(
    caller: TileCaller,
    bands: Sequence[BandSpec],
    outputs: tuple[BandSpec, ...],
    variables: Mapping[str, xr.DataArray],
    dataset: xr.Dataset,
    georef: GeoRef,
    options: PredictOptions,
) -> xr.Dataset:
    """The lazy bands on their grid."""
    tiles, blend = caller.tiles, options.blend
    if blend == "hann" and not max(tiles.overlap.xy):
        raise OptionError(
            "blend='hann' averages where tiles overlap, and these do not: say input_overlap_size."
        )
    if blend == "hann" and tiles.output_overlap is None:
        raise OptionError(
            f"input_overlap_size={tiles.overlap.xy} is no whole number of pixels at the scale of the output, "
            "so that nothing can be blended: use blend='crop'."
        )
    grid = PatchGrid(georef.shape, tiles.core, tiles.overlap, georef.affine, georef.crs_text, edge="pad")
    mapped = {
        dim: size
        for band in bands
        for dim, size in variables[band.name].sizes.items()
        if dim not in (georef.y_dim, georef.x_dim, *band.dims)
    }
    steps = list(np.ndindex(*mapped.values()))
    shape = tiles.scaled(grid.shape)
    scale = Affine.scale(tiles.core.x / tiles.output.x, tiles.core.y / tiles.output.y)
    place = replace(georef, shape=shape, affine=grid.affine @ scale)
    if not steps:  # as everything in xarray: no steps in, no steps out
        sizes = tuple(mapped.values())
        empty = [da.zeros((*sizes, *out.shape, *shape.shape), dtype=out.dtype, chunks=-1) for out in outputs]
        return _result(outputs, empty, mapped, dataset, place)
    arrays = [
        _step_array(band, variables[band.name], georef, tiles.core, mapped, step)
        for step in steps
        for band in bands
    ]
    rules = tuple(
        BandRule.of(array.chunks, dtype=array.dtype.str, default=0, nodata=band.nodata)
        for band, array in zip(bands, arrays, strict=False)
    )
    work = TileWork(
        caller=caller,
        grid=grid,
        bands=tuple(bands),
        rules=rules,
        outputs=outputs,
        blend=blend,
        skip_masked=options.skip_masked,
        augment=options.augment is not None,
        mapped=tuple(map(str, mapped)),
    )
    layout = lay_out_blocks(grid, georef.shape, chunk_grids(arrays[: len(bands)]), pixel_bytes(rules), 1)
    predicted = arrays_of_blocks(
        _NAME,
        arrays,
        layout,
        work,
        [ArraySpec(output.name, np.dtype(output.dtype), output.shape) for output in outputs],
        {block: work.window(layout, block) for block in layout.blocks()},
        steps=mapped,
        chunks=_chunks(layout, tiles.output, shape),
        version=caller.connector.version(),
    )
    return _result(outputs, predicted, mapped, dataset, place)


def _result(
    outputs: Sequence[BandSpec],
    arrays: Sequence[da.Array],
    mapped: Mapping[Hashable, int],
    dataset: xr.Dataset,
    place: GeoRef,
) -> xr.Dataset:
    """The bands of the result, with their dimensions, coordinates and place."""
    variables = {}
    for output, array in zip(outputs, arrays, strict=True):
        variable = xr.Variable((*mapped, *output.dims, place.y_dim, place.x_dim), array)
        if output.default is not None:
            # GDAL needs NaN noted, in a place from which no arithmetic hands it on to integers.
            notes = variable.encoding if math.isnan(output.default) else variable.attrs
            notes["_FillValue"] = array.dtype.type(output.default)
        variables[output.name] = variable
    coords = {dim: dataset.coords[dim].variable for dim in mapped if dim in dataset.coords}
    return write_georef(xr.Dataset(variables, coords), place, place.x_dim, place.y_dim)


def _step_array(
    band: BandSpec,
    variable: xr.DataArray,
    georef: GeoRef,
    core: Size,
    mapped: Mapping[Hashable, int],
    step: tuple[int, ...],
) -> Any:
    """The chunked array of one step of a band; a band without a dimension is the same in all its steps."""
    index = {dim: at for dim, at in zip(mapped, step, strict=True) if dim in variable.dims}
    variable = variable.isel(index).expand_dims([dim for dim in band.dims if dim not in variable.dims])
    return plane_array(variable, band.dims, georef.y_dim, georef.x_dim, sides=core.shape)


def _chunks(layout: BlockLayout, output: Size, shape: Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of whole tiles, all alike as Zarr wants them, about as large as blocks are."""
    found = []
    for axis, side, length in ((layout.y, output.y, shape.y), (layout.x, output.x, shape.x)):
        chunk = side * max(len(axis.owned(block)) for block in range(len(axis)))
        full, rest = divmod(length, chunk)
        found.append((chunk,) * full + ((rest,) if rest else ()))
    return found[0], found[1]
