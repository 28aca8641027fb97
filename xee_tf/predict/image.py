"""Predictions from a raster: what ``ee.Model.predictImage`` does, lazily."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine

from xee_tf.blocks.assemble import BandRule
from xee_tf.blocks.layout import BlockLayout
from xee_tf.blocks.sizing import lay_out_blocks, pixel_bytes
from xee_tf.connector import Signature
from xee_tf.errors import OptionError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import GeoRef, read_georef, write_georef
from xee_tf.georef.bands import image_dataset, plane_array
from xee_tf.georef.conventions import GRID_MAPPING, grid_mappings, name_dims, raster_variables
from xee_tf.georef.masks import Nodata, band_nodata, can_mask
from xee_tf.graph import ArraySpec, arrays_of_blocks, chunk_grids
from xee_tf.models.inputs import Item, check_overrides, group_inputs
from xee_tf.models.options import PREDICT_SPELLING
from xee_tf.models.spec import Model
from xee_tf.models.types import fill_outside
from xee_tf.names import check_key, check_variables
from xee_tf.options import one_of, spelled
from xee_tf.predict.augment import SPREAD
from xee_tf.predict.axes import find_array_dims
from xee_tf.predict.calling import TileCaller, tile_caller
from xee_tf.predict.resampling import Resampling, from_projection, to_projection
from xee_tf.predict.work import Band, Blend, OutputBand, TileWork

__all__ = ["Seen", "inner_dims", "predict_image", "predict_seen"]

_NAME = "xee-tf-predict"


@spelled(PREDICT_SPELLING)
def predict_image(
    model: Model,
    image: xr.Dataset | xr.DataArray,
    *,
    merge: bool = True,
    properties: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    blend: Blend = "crop",
    skip_masked: bool = True,
    augment: Literal["d4"] | None = None,
    resampling: Resampling = "nearest",
    output_grid: Literal["image", "model"] = "image",
    crs: Any = None,
    transform: Affine | Sequence[float] | None = None,
) -> xr.Dataset:
    """Predict every pixel of a raster, tile by tile and lazily.

    Tiles of ``input_tile_size`` go to the model with ``input_overlap_size`` more pixels on every side, which
    are cut off the answer; the last ones of a row or column reach beyond the raster, so that every pixel is
    covered. Nothing is called until the result is computed; then each chunk of the raster is loaded once.

    Parameters
    ----------
    model : Model
    image : Dataset or DataArray
        A variable for each band, or variables with a ``band`` dimension. Further dimensions, such as time,
        are mapped over, wherever they stand: each step is predicted by itself, and the result has that
        dimension. Those that the model's ``array_dims`` or ``input_shapes`` name, or that the shapes of its
        own inputs call for, go to the model as a whole, and the result lacks them (see Notes).
    merge : bool
        Give the bands of the image too, as Earth Engine's guide says. False: predictions alone.
    properties : mapping, optional
        Of these, ``input_properties`` are sent with each tile. Default: the attributes of the image.
    batch_size : int, optional
        Tiles in a call of the model. Default: about 8 MiB of them.
    blend : {"crop", "hann"}
        "hann": overlapping answers are not cut off but averaged, with weights that fade out towards their
        edges (our addition). Float bands only.
    skip_masked : bool
        Do not send tiles in which no pixel counts; their result is masked in any case.
    augment : {"d4"}, optional
        Predict each tile in the eight positions of a square, and give the mean and, in bands with the
        ending "_spread", the standard deviation (our addition). Float bands only.
    resampling : {"nearest", "bilinear"}
        How pixels come to the model's projection and back, with ``fix_input_proj``.
    output_grid : {"image", "model"}
        With ``fix_input_proj``: come back to the grid of the image, or leave predictions on the model's.
    crs, transform : optional
        CRS and affine of the image, where it has none or a wrong one.

    Returns
    -------
    Dataset
        A lazy variable for each output band, ``(*mapped, *array, y, x)``. Where a pixel of any band that
        the model sees is masked (NaN, ``_FillValue``, nodata), the model gets 0 and the result is masked:
        NaN in float bands, ``_FillValue`` in integer bands. That is the largest value of unsigned types and
        the smallest of signed ones (our choice; of 64 bits, 2**53 - 1 and its negative, because the nodata
        of GeoTIFFs is a float64), or another one where it is in the range that the output is
        declared with; the type is a larger one where the range leaves no value. Without a declared range,
        a tile that holds the value where it is not masked fails when it is computed. Where no band of the
        image can be masked, there is no ``_FillValue``. Where ``output_tile_size`` changes the scale, the
        result has a grid of its own, and a pixel is masked if all those that it covers are (our choice).
        The result lies where the image was taken to lie, by `crs` and `transform`, its coordinates or its
        attributes: it has ``spatial_ref``, coordinates in units of the CRS, and the image's names of
        dimensions, which ``.rio`` knows.

    Raises
    ------
    OptionError
        If bands are missing or do not fit, or an option cannot be used.
    GeoreferenceError
        If it cannot be told where the image lies; with ``fix_input_proj`` also if part of the image lies
        outside the model's projection, or the image crosses the edge of that projection.
    ModelError
        If the model cannot be opened. What only calling it can show is raised by computing.

    Notes
    -----
    A model that takes steps gets ``(n, height, width, time, band)``; bands without the dimension are repeated
    at every step. A Keras model or SavedModel tells the shape of its inputs, so that it is known which
    dimensions it takes: ``(None, None, None, 7, 10)`` takes 7 steps of 10 bands. Where its shape allows
    several readings, the call is refused; ``array_dims=("time",)`` or ``array_dims=()`` of the model
    decides. A function tells no shape: without ``array_dims``, each step is predicted by itself.

    Examples
    --------
    >>> import xee_tf
    >>> y, x = [45.0, 15.0], [500015.0, 500045.0]
    >>> scene = xr.Dataset(
    ...     {"B4": (("y", "x"), [[3.0, 4.0], [np.nan, 6.0]]), "B3": (("y", "x"), [[1.0, 1.0], [1.0, 2.0]])},
    ...     {"y": y, "x": x},
    ... ).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(
    ...     lambda pixels: (pixels[..., 0] - pixels[..., 1]) / (1e-9 + pixels[..., 0] + pixels[..., 1]),
    ...     input_tile_size=256,
    ...     output_bands=["ndvi"],
    ... )
    >>> predict_image(model, scene).ndvi.values.round(2)
    array([[0.5, 0.6],
           [nan, 0.5]], dtype=float32)
    """
    predicted, _ = predict_seen(
        model,
        image,
        merge=merge,
        properties=properties,
        batch_size=batch_size,
        blend=blend,
        skip_masked=skip_masked,
        augment=augment,
        resampling=resampling,
        output_grid=output_grid,
        crs=crs,
        transform=transform,
    )
    return predicted


@dataclass(frozen=True)
class Seen:
    """What the model sees of an image, and how: all that the values of a prediction depend on.

    Parameters
    ----------
    caller : TileCaller
        The model with its inputs, outputs, properties and sizes of tiles.
    bands : mapping from str to DataArray
        The bands of the image that the model gets, in its order, before they are resampled.
    inner : mapping from str to tuple
        For each of these the dimensions that the model takes as a whole.
    georef : GeoRef
        Where the image lies.
    options : mapping
        Those of `predict_image` that change values.
    """

    caller: TileCaller
    bands: Mapping[str, xr.DataArray]
    inner: Mapping[str, tuple[Hashable, ...]]
    georef: GeoRef
    options: Mapping[str, Any]


def predict_seen(
    model: Model,
    image: xr.Dataset | xr.DataArray,
    *,
    merge: bool = True,
    properties: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    blend: Blend = "crop",
    skip_masked: bool = True,
    augment: Literal["d4"] | None = None,
    resampling: Resampling = "nearest",
    output_grid: Literal["image", "model"] = "image",
    crs: Any = None,
    transform: Affine | Sequence[float] | None = None,
) -> tuple[xr.Dataset, Seen]:
    """As `predict_image`; gives also what the model sees of the image."""
    for name, value, allowed in (
        ("blend", blend, ("crop", "hann")),
        ("augment", augment, (None, "d4")),
        ("resampling", resampling, ("nearest", "bilinear")),
        ("output_grid", output_grid, ("image", "model")),
    ):
        one_of(name, value, allowed)
    dataset = image_dataset(image, split="band" not in (model.array_dims or ()))
    georef = read_georef(dataset, crs, transform)
    values = dict(image.attrs if properties is None else properties)
    place, source = georef, dataset
    if model.fix_input_proj and model.proj is not None:
        source, place = to_projection(dataset, georef, model.proj, resampling)
    signature = model.connector.signature()
    bands = _bands(model, signature, source, place, values)
    caller = tile_caller(
        model,
        {band.name: (band.dtype, band.shape) for band in bands},
        values,
        batch_size=batch_size,
        signature=signature,
    )
    bands = [band for band in bands if band.name in caller.bands]
    variables = _variables(dataset, georef)
    seen = Seen(
        caller=caller,
        bands={name: variables[name] for name in caller.bands},
        inner={band.name: band.inner for band in bands},
        georef=georef,
        options={"blend": blend, "augment": augment, "resampling": resampling, "output_grid": output_grid},
    )
    maskable = any(can_mask(band.dtype, band.nodata) for band in bands)
    outputs = _outputs(caller, blend, augment, maskable)
    _check_names(outputs, dataset, place, merge)
    predicted = _predict(caller, bands, outputs, source, place, blend, skip_masked, augment is not None)
    own_grid = place is not georef or caller.tiles.output != caller.tiles.core
    if place is not georef and output_grid == "image":
        predicted = from_projection(predicted, place, georef, resampling)
        own_grid = False
    if own_grid:
        if merge:
            raise OptionError(
                "The predictions have a grid of their own (another scale or projection) and cannot be bands "
                "of the same Dataset: say merge=False."
            )
        return predicted, seen
    added = {name: predicted[name].variable for name in predicted.data_vars}
    # The image may lie elsewhere than its own coordinates and attributes say: crs=, transform=, units.
    merged = write_georef(dataset.assign(added), georef, georef.x_dim, georef.y_dim)
    if merge:
        return merged, seen
    alone = merged[list(added)].drop_attrs(deep=False)
    return name_dims(alone, georef.x_dim, georef.y_dim), seen


@dataclass(frozen=True)
class _ImageBand:
    """A band of an image as a model may see it."""

    name: str
    variable: xr.DataArray
    mapped: tuple[Hashable, ...]
    inner: tuple[Hashable, ...]
    nodata: Nodata

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.sizes[dim] for dim in self.inner)


def _variables(dataset: xr.Dataset, georef: GeoRef) -> dict[str, xr.DataArray]:
    """The variables of an image that are rasters, by their names as text."""
    return {str(key): band for key, band in raster_variables(dataset, georef.x_dim, georef.y_dim)}


def _bands(
    model: Model, signature: Signature, dataset: xr.Dataset, georef: GeoRef, properties: Mapping[str, Any]
) -> list[_ImageBand]:
    """The bands, and which of their dimensions are mapped over."""
    spatial = (georef.y_dim, georef.x_dim)
    variables = _variables(dataset, georef)
    if not variables:
        raise OptionError(
            f"The image has no bands: no variable has the dimensions {georef.y_dim} and {georef.x_dim}."
        )
    further = {
        name: {dim: size for dim, size in band.sizes.items() if dim not in spatial}
        for name, band in variables.items()
    }
    items = {name: Item(np.dtype(object)) for name in model.input_properties if name in properties}
    items |= {name: Item(band.dtype, tiled=True) for name, band in variables.items()}
    check_overrides(model, {**items, **properties}, "image")
    groups = group_inputs(model, signature, items)
    array_dims = find_array_dims(model, signature, further, groups)
    together = {
        name: {dim for other in members for dim in further.get(other, ())}
        for members in groups.values()
        for name in members
    }
    bands = []
    for name, band in variables.items():
        nodata = band_nodata(band, name)
        inner = [dim for dim in array_dims if dim in together.get(name, further[name])]
        mapped = tuple(dim for dim in further[name] if dim not in array_dims)
        if own := [dim for dim in inner if dim in further[name]]:
            band = band.expand_dims([dim for dim in inner if dim not in own])
        bands.append(_ImageBand(name, band, mapped, tuple(inner if own else ()), nodata))
    return bands


def _outputs(caller: TileCaller, blend: Blend, augment: str | None, maskable: bool) -> tuple[OutputBand, ...]:
    """The bands of the result."""
    averaged = [
        name for name, wanted in (("blend='hann'", blend == "hann"), ("augment='d4'", augment)) if wanted
    ]
    outputs = []
    for output in caller.outputs:
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
        outputs.append(OutputBand(output.name, dtype, output.shape, fill, limits))
    if augment is None:
        return tuple(outputs)
    tile = caller.tile
    if tile.x != tile.y:
        raise OptionError(
            f"augment='d4' turns tiles, which must be square then; these are {tile.x} x {tile.y} pixels."
        )
    spreads = [replace(output, name=output.name + SPREAD) for output in outputs]
    return (*outputs, *spreads)


def _check_names(outputs: Sequence[OutputBand], dataset: xr.Dataset, place: GeoRef, merge: bool) -> None:
    """Refuse outputs that would replace a coordinate or a dimension, or one another."""
    names = [check_key(output.name, "output") for output in outputs]
    if twice := [name for name in names if names.count(name) > 1]:
        raise OptionError(f"Two outputs would be named {twice[0]!r}. Name them differently in output_bands.")
    mappings = grid_mappings(dataset, place.x_dim, place.y_dim)
    taken = {*dataset.dims, *dataset.coords, *mappings, GRID_MAPPING, place.x_dim, place.y_dim}
    remedy = "Give the output another name in output_bands, or rename what the image has: image.rename(...)."
    own = {output.name: inner_dims(output.name, len(output.shape)) for output in outputs}
    check_variables(own, taken, remedy, "output")
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
                f"name. {remedy}"
            )


def _predict(
    caller: TileCaller,
    bands: Sequence[_ImageBand],
    outputs: tuple[OutputBand, ...],
    dataset: xr.Dataset,
    georef: GeoRef,
    blend: Blend,
    skip_masked: bool,
    augment: bool,
) -> xr.Dataset:
    """The lazy bands on their grid."""
    tiles = caller.tiles
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
    mapped = {dim: dataset.sizes[dim] for band in bands for dim in band.mapped}
    steps = list(np.ndindex(*mapped.values()))
    shape, affine = _output_grid(grid, tiles.core, tiles.output)
    place = replace(georef, shape=shape, affine=affine)
    if not steps:  # as everything in xarray: no steps in, no steps out
        sizes = tuple(mapped.values())
        empty = [da.zeros((*sizes, *out.shape, *shape.shape), dtype=out.dtype, chunks=-1) for out in outputs]
        return _result(outputs, empty, mapped, dataset, place)
    arrays = [_step_array(band, georef, tiles.core, mapped, step) for step in steps for band in bands]
    rules, planes = [], 0
    for band, array in zip(bands, arrays[: len(bands)], strict=True):
        rules.append(BandRule.of(array.chunks, planes, dtype=band.dtype.str, default=0, nodata=band.nodata))
        planes += len(rules[-1].planes)
    work = TileWork(
        caller=caller,
        grid=grid,
        bands=tuple(Band(band.name, band.shape, rule) for band, rule in zip(bands, rules, strict=True)),
        outputs=outputs,
        blend=blend,
        skip_masked=skip_masked,
        augment=augment,
        mapped=tuple(map(str, mapped)),
    )
    layout = lay_out_blocks(grid, georef.shape, chunk_grids(arrays[: len(bands)]), pixel_bytes(rules), 1)
    predicted = arrays_of_blocks(
        _NAME,
        arrays,
        layout,
        work,
        [ArraySpec(output.name, output.dtype, output.shape) for output in outputs],
        {block: work.window(layout, block) for block in layout.blocks()},
        steps=mapped,
        chunks=_chunks(layout, tiles.output, shape),
        version=caller.connector.version(),
    )
    return _result(outputs, predicted, mapped, dataset, place)


def _result(
    outputs: Sequence[OutputBand],
    arrays: Sequence[da.Array],
    mapped: Mapping[Hashable, int],
    dataset: xr.Dataset,
    place: GeoRef,
) -> xr.Dataset:
    """The bands of the result, with their dimensions, coordinates and place."""
    variables = {}
    for output, array in zip(outputs, arrays, strict=True):
        inner = inner_dims(output.name, len(output.shape))
        variable = xr.Variable((*mapped, *inner, place.y_dim, place.x_dim), array)
        if output.fill is not None:
            # GDAL needs NaN noted, in a place from which no arithmetic hands it on to integers.
            notes = variable.encoding if math.isnan(output.fill) else variable.attrs
            notes["_FillValue"] = output.dtype.type(output.fill)
        variables[output.name] = variable
    coords = {dim: dataset.coords[dim].variable for dim in mapped if dim in dataset.coords}
    return write_georef(xr.Dataset(variables, coords), place, place.x_dim, place.y_dim)


def inner_dims(name: str, count: int) -> tuple[str, ...]:
    """The dimensions of what a model gives of a band in each pixel."""
    return tuple(f"{name}_{axis}" for axis in range(count))


def _step_array(
    band: _ImageBand, georef: GeoRef, core: Size, mapped: Mapping[Hashable, int], step: tuple[int, ...]
) -> Any:
    """The chunked array of one step of a band; a band without a dimension is the same in all its steps."""
    index = {dim: at for dim, at in zip(mapped, step, strict=True) if dim in band.mapped}
    return plane_array(band.variable.isel(index), band.inner, georef.y_dim, georef.x_dim, sides=core.shape)


def _output_grid(grid: PatchGrid, core: Size, output: Size) -> tuple[Size, Affine]:
    """Pixels of the result, which cover all of the image, and its affine."""
    shape = Size(x=-(-grid.shape.x * output.x // core.x), y=-(-grid.shape.y * output.y // core.y))
    return shape, grid.affine @ Affine.scale(core.x / output.x, core.y / output.y)


def _chunks(layout: BlockLayout, output: Size, shape: Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Chunks of whole tiles, all alike as Zarr wants them, about as large as blocks are."""
    found = []
    for axis, side, length in ((layout.y, output.y, shape.y), (layout.x, output.x, shape.x)):
        chunk = side * max(len(axis.owned(block)) for block in range(len(axis)))
        full, rest = divmod(length, chunk)
        found.append((chunk,) * full + ((rest,) if rest else ()))
    return found[0], found[1]
