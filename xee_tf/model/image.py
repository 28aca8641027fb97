"""Predictions from a raster: what ``ee.Model.predictImage`` does, lazily."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from affine import Affine
from dask.task_spec import DataNode, TaskRef
from dask.tokenize import tokenize

from xee_tf.bands import image_dataset, plane_array
from xee_tf.blocks.assemble import BandRule
from xee_tf.blocks.layout import BlockLayout
from xee_tf.blocks.sizing import lay_out_blocks, pixel_bytes
from xee_tf.errors import OptionError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import GeoRef, read_georef, write_georef
from xee_tf.georef.conventions import GRID_MAPPING, grid_mappings, raster_variables
from xee_tf.graph import Sources, Tasks, block_tasks, chunk_grids, stitched_array, turns
from xee_tf.model.augment import SPREAD
from xee_tf.model.calling import TileCaller, tile_caller
from xee_tf.model.options import PREDICT_SPELLING
from xee_tf.model.resampling import Resampling, from_projection, to_projection
from xee_tf.model.spec import Model
from xee_tf.model.work import Band, Blend, OutputBand, TileWork
from xee_tf.names import check_key, check_variables
from xee_tf.options import spelled

__all__ = ["inner_dims", "predict_image"]

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
        A variable for each band, or a DataArray with a ``band`` dimension. Dimensions in front of y and x,
        such as time, are mapped over: each step is predicted by itself. A band with dimensions behind y
        and x, or that the model's ``input_shapes`` names, is an array band.
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
        NaN in float bands, in integer bands ``_FillValue``, which is the largest value of unsigned types and
        the smallest of signed ones (our choice). Where ``output_tile_size`` changes the scale, the result has
        a grid of its own, and a pixel is masked if all those that it covers are (our choice).

    Raises
    ------
    OptionError
        If bands are missing or do not fit, or an option cannot be used.
    GeoreferenceError
        If it cannot be told where the image lies.
    ModelError
        If the model cannot be opened. What only calling it can show is raised by computing.

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
    for name, value, allowed in (
        ("blend", blend, ("crop", "hann")),
        ("augment", augment, (None, "d4")),
        ("resampling", resampling, ("nearest", "bilinear")),
        ("output_grid", output_grid, ("image", "model")),
    ):
        if value not in allowed:
            raise OptionError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
    dataset = image_dataset(image)
    georef = read_georef(dataset, crs, transform)
    values = dict(image.attrs if properties is None else properties)
    place, source = georef, dataset
    if model.fix_input_proj and model.proj is not None:
        source, place = to_projection(dataset, georef, model.proj, resampling)
    bands = _bands(model, source, place)
    caller = tile_caller(
        model, {band.name: (band.dtype, band.shape) for band in bands}, values, batch_size=batch_size
    )
    bands = [band for band in bands if band.name in caller.bands]
    outputs = _outputs(caller, blend, augment)
    _check_names(outputs, dataset, place, merge)
    predicted = _predict(caller, bands, outputs, source, place, blend, skip_masked, augment is not None)
    own_grid = place is not georef or caller.tiles.output != caller.tiles.core
    if place is not georef and output_grid == "image":
        predicted = from_projection(predicted, georef, resampling)
        own_grid = False
    if own_grid:
        if merge:
            raise OptionError(
                "The predictions have a grid of their own (another scale or projection) and cannot be bands "
                "of the same Dataset: say merge=False."
            )
        return predicted
    if taken := [name for name in predicted.data_vars if merge and name in dataset.variables]:
        raise OptionError(
            f"The image has bands or coordinates of the names {taken} already. Give the outputs other names "
            "with output_bands, or say merge=False."
        )
    variables = {name: predicted[name].variable for name in predicted.data_vars}
    mapping = next(iter(grid_mappings(dataset, georef.x_dim, georef.y_dim)), None)
    if mapping is None:  # the image says otherwise where it lies
        dataset = dataset.assign_coords({GRID_MAPPING: predicted[GRID_MAPPING].variable})
    for variable in variables.values():
        variable.encoding["grid_mapping"] = mapping or GRID_MAPPING
    merged = dataset.assign(variables)
    return merged if merge else merged[list(variables)]


@dataclass(frozen=True)
class _ImageBand:
    """A band of an image as a model may see it."""

    name: str
    variable: xr.DataArray
    mapped: tuple[Hashable, ...]
    inner: tuple[Hashable, ...]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.variable.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.variable.sizes[dim] for dim in self.inner)


def _bands(model: Model, dataset: xr.Dataset, georef: GeoRef) -> list[_ImageBand]:
    """The bands, and which of their dimensions are mapped over."""
    bands = []
    y, x = georef.y_dim, georef.x_dim
    for key, variable in raster_variables(dataset, x, y):
        name = str(key)
        dims = list(variable.dims)
        further = [dim for dim in dims if dim not in (y, x)]
        last = max(dims.index(y), dims.index(x))
        inner = [dim for dim in further if dims.index(dim) > last]
        if name in (model.input_shapes or {}):
            inner = further
        mapped = tuple(dim for dim in further if dim not in inner)
        bands.append(_ImageBand(name, variable, mapped, tuple(inner)))
    return bands


def _outputs(caller: TileCaller, blend: Blend, augment: str | None) -> tuple[OutputBand, ...]:
    """The bands of the result."""
    averaged = [
        name for name, wanted in (("blend='hann'", blend == "hann"), ("augment='d4'", augment)) if wanted
    ]
    outputs = []
    for output in caller.outputs:
        dtype = np.dtype(np.uint8) if output.dtype == bool else output.dtype
        if dtype.kind not in "iuf":
            raise OptionError(f"The output {output.name!r} is {dtype}: a raster holds numbers.")
        if averaged and dtype.kind != "f":
            raise OptionError(
                f"{averaged[0]} averages predictions, and {output.name!r} is {dtype}: declare a float type "
                "in output_bands if an average of it means something, for example of probabilities."
            )
        fill = math.nan
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            fill = int(limits.max if dtype.kind == "u" else limits.min)
        outputs.append(OutputBand(output.name, dtype, output.shape, fill))
    if augment is None:
        return tuple(outputs)
    tile = caller.tile
    if tile.x != tile.y:
        raise OptionError(
            f"augment='d4' turns tiles, which must be square then; these are {tile.x} x {tile.y} pixels."
        )
    return (*outputs, *(replace(output, name=output.name + SPREAD) for output in outputs))


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
    arrays = [_step_array(band, georef, tiles.core, mapped, step) for step in steps for band in bands]
    rules, planes = [], 0
    for band, array in zip(bands, arrays[: len(bands)], strict=True):
        nodata = band.variable.rio.nodata
        rules.append(BandRule.of(array.chunks, planes, dtype=band.dtype.str, default=0, nodata=nodata))
        planes += len(rules[-1].planes)
    work = TileWork(
        caller=caller,
        grid=grid,
        bands=tuple(Band(band.name, band.shape, rule) for band, rule in zip(bands, rules, strict=True)),
        outputs=outputs,
        maskable=any(plane.may_mask(np.dtype(rule.dtype)) for rule in rules for plane in rule.planes),
        blend=blend,
        skip_masked=skip_masked,
        augment=augment,
    )
    layout = lay_out_blocks(grid, georef.shape, chunk_grids(arrays[: len(bands)]), pixel_bytes(rules), 1)
    token = tokenize([array.name for array in arrays], work, layout, caller.connector.version())
    turn = f"{_NAME}-turn-{token}"
    sources = Sources.of(arrays, root=turn)
    blocks: list[dict[tuple[int, int], Any]] = []
    worker = f"{_NAME}-tiles-{token}"
    tasks: Tasks = {worker: DataNode(worker, work)}  # a model may be in it
    for number, step in enumerate(steps):
        own = replace(sources, keys=sources.keys[number * planes : (number + 1) * planes])
        name = "-".join([_NAME, *map(str, step), token])
        added, keys = block_tasks(layout, own, TaskRef(worker), name)
        tasks |= added
        blocks.append(keys)
    windows = {block: work.window(layout, block) for block in layout.blocks()}
    shape, affine = _output_grid(grid, tiles.core, tiles.output)
    chunks = _chunks(layout, tiles.output, shape)
    empty, order = turns(turn, len(steps) * math.prod(map(len, chunks)))
    layers = {f"sources-{token}": sources.graph, f"{_NAME}-{token}": tasks | empty}
    variables = {}
    for output in outputs:
        array = stitched_array(
            f"{_NAME}-band-{output.name}-{token}",  # no layer is called like a band
            output.name,
            layers,
            windows,
            blocks,
            order,
            lead=tuple(mapped.values()),
            shape=output.shape,
            chunks=chunks,
            dtype=output.dtype,
        )
        inner = inner_dims(output.name, len(output.shape))
        attrs = {} if math.isnan(output.fill) else {"_FillValue": output.dtype.type(output.fill)}
        variables[output.name] = xr.Variable((*mapped, *inner, georef.y_dim, georef.x_dim), array, attrs)
    coords = {dim: dataset.coords[dim].variable for dim in mapped if dim in dataset.coords}
    place = replace(georef, shape=shape, affine=affine)
    return write_georef(xr.Dataset(variables, coords), place, georef.x_dim, georef.y_dim)


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
