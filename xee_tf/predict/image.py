"""Lazy predictions from a raster, as ``ee.Model.predictImage`` makes them."""

from __future__ import annotations

import math
import os
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import dask.array as da
import numpy as np
import xarray as xr
from affine import Affine

from xee_tf.blocks import BandRule, BlockLayout, lay_out_blocks, pixel_bytes
from xee_tf.connector import Signature
from xee_tf.display import quoted
from xee_tf.errors import OptionError, shorten
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
    require_image,
    write_georef,
)
from xee_tf.graph import ArraySpec, arrays_of_blocks, centered_axes, chunk_grids, for_xarray
from xee_tf.models import (
    Item,
    ModelSpec,
    channels_hint,
    check_overrides,
    fill_outside,
    find_array_dims,
    group_inputs,
    lead_axes,
    model_kind,
    type_name,
)
from xee_tf.names import SPREAD, check_key, check_variables
from xee_tf.options import check_flags
from xee_tf.predict.averaging import Blend
from xee_tf.predict.block import BlockPredictor
from xee_tf.predict.calling import Caller, TileCaller, pinned_spec, pixel_caller, tile_caller
from xee_tf.predict.options import PredictOptions
from xee_tf.predict.output_bands import DerivedBand, OutputBand, derive_bands
from xee_tf.predict.pixels import PixelPredictor, require_tiles
from xee_tf.predict.resampling import from_projection, to_projection
from xee_tf.sidecars import BandSpec

__all__ = ["RENAME", "Prediction", "Work", "input_files", "predict_image", "require_model"]

RENAME = (
    "Give the output another name in output_bands, or rename the variable of the image: image.rename(...)."
)
"""End of the errors about an output name that cannot be used."""

_NAME = "xee-tf-predict"


@dataclass(frozen=True)
class Work:
    """The tiles, or single pixels, and blocks of a prediction.

    Parameters
    ----------
    grid : PatchGrid
        The tiles, or single pixels, over the raster in the projection of the model.
    steps : mapping of str to int
        Dimensions of which each step is predicted separately, with their lengths.
    predictor : BlockPredictor or PixelPredictor, optional
        What is done with each block. None, with `layout`, if such a dimension is empty.
    layout : BlockLayout, optional
        The blocks.
    """

    grid: PatchGrid
    steps: Mapping[str, int]
    predictor: BlockPredictor | PixelPredictor | None = None
    layout: BlockLayout | None = None


@dataclass(frozen=True)
class Prediction:
    """A lazy prediction and everything that its values depend on.

    Parameters
    ----------
    dataset : Dataset
        The prediction.
    caller : Caller
        The model with its inputs, outputs, properties and tile sizes.
    bands : mapping of str to BandSpec
        Bands of the image that the model takes, with the dimensions that go to the model as a whole.
    variables : mapping of str to DataArray
        The same bands in the order of the model, before they are resampled.
    outputs : tuple of OutputBand
        Bands of the result.
    georef : GeoRef
        Georeference of the image.
    options : PredictOptions
        Options of the prediction.
    work : Work
        The tiles and blocks.
    """

    dataset: xr.Dataset
    caller: Caller
    bands: Mapping[str, BandSpec]
    variables: Mapping[str, xr.DataArray]
    outputs: tuple[OutputBand, ...]
    georef: GeoRef
    options: PredictOptions
    work: Work


def predict_image(
    spec: ModelSpec, image: xr.Dataset | xr.DataArray, options: PredictOptions, *, merge: bool
) -> Prediction:
    """Predict every pixel of a raster lazily, tile by tile; see `xee_tf.Model.predict_image`."""
    require_model(spec)
    check_flags(merge=merge)
    if spec.unit == "pixel":
        require_tiles(options)
    spec = pinned_spec(spec)
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
    plan = pixel_caller if spec.unit == "pixel" else tile_caller
    caller = plan(spec, signature, bands, values, batch_size=options.batch_size)
    bands = [band for band in bands if band.name in caller.bands]
    maskable = any(can_mask(np.dtype(band.dtype), band.nodata) for band in bands)
    taken = _outputs(caller, signature, options.blend, options.augment, maskable)
    outputs = _derive(caller, taken)
    _check_names(outputs, dataset, place, merge)
    resampled = place is not georef and options.output_grid == "image"
    # The class of a pixel is that of its interpolated probabilities, of which there is one confidence.
    later = resampled and options.resampling == "bilinear"
    predicted, work = _predict(
        caller, bands, taken, taken if later else outputs, sampled, source, place, options
    )
    own_grid = place is not georef or caller.tiles.output != caller.tiles.core
    if resampled:
        predicted = from_projection(predicted, place, georef, options.resampling)
        own_grid = False
    if later:
        predicted = _with_derived(predicted, outputs)
    if own_grid and merge:
        raise OptionError(
            "The predictions are on a different grid than the image (another scale or projection) and cannot "
            "be bands of the same Dataset. Pass merge=False."
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
        work,
    )


def require_model(model: Any) -> None:
    """Check the type of a model; the error suggests a constructor for what is passed instead."""
    if isinstance(model, ModelSpec):
        return
    is_plain = model is None or isinstance(model, str | os.PathLike | int | float)
    shown = shorten(repr(model)) if is_plain else f"an object of type {type(model).__name__}"
    if isinstance(model, str | os.PathLike):
        kinds = {"keras": "from_keras", "onnx": "from_onnx", "mlm": "from_mlm"}
        kind = kinds.get(model_kind(model) or "", "from_saved_model")
        hint = f" Use xee_tf.Model.{kind}({str(model)!r})."
    elif all(callable(getattr(model, name, None)) for name in ("open", "signature")):
        hint = " Use xee_tf.Model.from_connector(connector)."
    elif callable(getattr(model, "export", None)):
        hint = " Use xee_tf.Model.from_keras(model)."
    elif callable(model):
        hint = " Use xee_tf.Model.from_function(function)."
    else:
        hint = ""
    raise OptionError(f"model must be an xee_tf.Model; got {shown}.{hint}")


def _on_grid(predicted: xr.Dataset, dataset: xr.Dataset, georef: GeoRef, merge: bool) -> xr.Dataset:
    """Return the predictions on the grid of the image, with the bands of the image if they are merged."""
    added = {name: predicted[name].variable for name in predicted.data_vars}
    # crs=, transform= or units may override the coordinates and attributes of the image.
    merged = write_georef(dataset.assign(added), georef, georef.x_dim, georef.y_dim)
    if merge:
        return merged
    alone = merged[list(added)].drop_attrs(deep=False)
    return name_dims(alone, georef.x_dim, georef.y_dim)


def _variables(dataset: xr.Dataset, georef: GeoRef) -> dict[str, xr.DataArray]:
    """Return the raster variables of an image by name."""
    return {str(key): band for key, band in raster_variables(dataset, georef.x_dim, georef.y_dim)}


def _bands(
    spec: ModelSpec,
    signature: Signature,
    variables: Mapping[str, xr.DataArray],
    georef: GeoRef,
    properties: Mapping[str, Any],
) -> list[BandSpec]:
    """Return the bands with the dimensions that go to the model as a whole."""
    spatial = (georef.y_dim, georef.x_dim)
    if not variables:
        raise OptionError(
            f"The image has no bands: no variable has the dimensions {georef.y_dim!r} and {georef.x_dim!r}."
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
        # A band with none of these dimensions is scalar; a band with some has length 1 along the others.
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


def _outputs(
    caller: Caller, signature: Signature, blend: Blend, augment: str | None, maskable: bool
) -> tuple[OutputBand, ...]:
    """Return the outputs of the model, with their spreads, as the blocks compute them."""
    averaged = [
        name for name, enabled in (("blend='hann'", blend == "hann"), ("augment='d4'", augment)) if enabled
    ]
    spreads = [
        replace(output, name=output.name + SPREAD)
        for output in caller.outputs
        if augment and output.classes is None
    ]
    outputs = []
    for output in (*caller.outputs, *spreads):
        dtype, limits = output.dtype, output.limits
        if dtype.kind == "b":
            dtype, limits = np.dtype(np.uint8), (0, 1)
        if dtype.kind not in "iuf":
            others = [each.name for each in caller.outputs if each.dtype.kind in "biuf"]
            lead = lead_axes("tile" if isinstance(caller, TileCaller) else "pixel")
            channels = channels_hint(signature.outputs or {}, "output_bands", lead)
            fix = "" if channels else " Change the model."
            if others:
                fix = f" Name the others in output_bands: {quoted(others)}."
            raise OptionError(
                f"The output {output.name!r} has dtype {type_name(dtype)}; expected a boolean, integer or "
                f"float dtype, because it becomes a band.{fix}{channels}"
            )
        if averaged and dtype.kind != "f":
            raise OptionError(
                f"{averaged[0]} averages predictions, but {output.name!r} has dtype {dtype}. If its average "
                "is meaningful, as for probabilities, declare a float type in output_bands."
            )
        fill: float | None = math.nan if maskable else None
        if maskable and dtype.kind != "f":
            dtype, fill = fill_outside(dtype, limits)
        outputs.append(OutputBand(output.name, output.dims, output.shape, dtype, fill))
    tile = caller.tiles.sent
    if augment is not None and tile.x != tile.y:
        raise OptionError(f"augment='d4' requires square tiles; got tiles of {tile.x} x {tile.y} pixels.")
    return tuple(outputs)


def _derive(caller: Caller, taken: Sequence[OutputBand]) -> tuple[OutputBand, ...]:
    """Return the bands of the result: maps of classes replace the probabilities."""
    declared = {output.name: output for output in caller.outputs}
    bands: list[OutputBand] = []
    for band in taken:
        output = declared.get(band.name)
        if output is None or output.classes is None:
            bands.append(band)
            continue
        classes = output.classes
        kinds: list[tuple[str, np.dtype[Any], float, bool]]
        kinds = [(band.name, classes.dtype, classes.nodata, True)]
        if output.confidence is not None:
            kinds.append((output.confidence, np.dtype(np.float32), math.nan, False))
        bands += (
            DerivedBand(name, (), (), dtype, fill, source=band.name, classes=classes, is_map=is_map)
            for name, dtype, fill, is_map in kinds
        )
    return tuple(bands)


def _check_names(outputs: Sequence[OutputBand], dataset: xr.Dataset, place: GeoRef, merge: bool) -> None:
    """Check that the names of outputs differ from each other and from dimensions, coordinates and bands."""
    names = [check_key(output.name, "output") for output in outputs]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise OptionError(
            f"Two outputs would be named {repeated[0]!r}. Give one of them another name in output_bands; the "
            "confidence of a map of classes is named by 'confidence': 'name'."
        )
    mappings = grid_mappings(dataset, place.x_dim, place.y_dim)
    taken = {*dataset.dims, *dataset.coords, *mappings, GRID_MAPPING, place.x_dim, place.y_dim}
    own = {output.name: output.dims for output in outputs}
    check_variables(own, taken, RENAME, "output")
    bands = set(dataset.data_vars) if merge else set()
    if existing := [name for name in names if name in bands]:
        raise OptionError(
            f"The image already has bands named {quoted(existing)}. Give the outputs other names in "
            "output_bands, or pass merge=False."
        )
    for name, dims in own.items():
        if clash := bands.intersection(dims):
            raise OptionError(
                f"The output {name!r} has a dimension {clash.pop()!r}, but the image has a band with that "
                f"name. {RENAME}"
            )


def input_files(image: xr.Dataset | xr.DataArray) -> list[Any]:
    """Return the files and stores from which an image was opened, as far as xarray knows them."""
    require_image(image)
    arrays = [image, *(image.data_vars.values() if isinstance(image, xr.Dataset) else ())]
    return [array.encoding.get("source") for array in arrays]


def _predict(
    caller: Caller,
    bands: Sequence[BandSpec],
    taken: tuple[OutputBand, ...],
    outputs: tuple[OutputBand, ...],
    variables: Mapping[str, xr.DataArray],
    dataset: xr.Dataset,
    georef: GeoRef,
    options: PredictOptions,
) -> tuple[xr.Dataset, Work]:
    """Return the lazy bands on their grid, and how they are computed."""
    tiles, blend = caller.tiles, options.blend
    if blend == "hann" and not max(tiles.overlap.xy):
        raise OptionError(
            "blend='hann' averages overlapping tiles, but the tiles do not overlap. Specify the model's "
            "input_overlap_size."
        )
    if blend == "hann" and tiles.output_overlap is None:
        raise OptionError(
            f"input_overlap_size={tiles.overlap.xy} is not a whole number of pixels at the scale of the "
            "output, so that tiles cannot be blended. Use blend='crop'."
        )
    grid = PatchGrid(georef.shape, tiles.core, tiles.overlap, georef.affine, georef.crs_text, edge="pad")
    mapped = {
        dim: size
        for band in bands
        for dim, size in variables[band.name].sizes.items()
        if dim not in (georef.y_dim, georef.x_dim, *band.dims)
    }
    lengths = {str(dim): size for dim, size in mapped.items()}
    steps = list(np.ndindex(*mapped.values()))
    shape = tiles.scaled(grid.shape)
    scale = Affine.scale(tiles.core.x / tiles.output.x, tiles.core.y / tiles.output.y)
    place = replace(georef, shape=shape, affine=grid.affine @ scale)
    if not steps:  # an empty dimension stays empty, as in xarray
        sizes = tuple(mapped.values())
        empty = [da.zeros((*sizes, *out.shape, *shape.shape), dtype=out.dtype, chunks=-1) for out in outputs]
        return _result(outputs, empty, mapped, dataset, place), Work(grid, lengths)
    arrays = [
        _step_array(band, variables[band.name], georef, tiles.core, mapped, step)
        for step in steps
        for band in bands
    ]
    rules = tuple(
        BandRule.of(array.chunks, dtype=array.dtype.str, default=0, nodata=band.nodata, name=band.name)
        for band, array in zip(bands, arrays, strict=False)
    )
    derived = tuple(band for band in outputs if isinstance(band, DerivedBand))
    added_up = blend == "hann"  # the classes are known when all blocks around a chunk are
    names = tuple(map(str, mapped))
    predictor: BlockPredictor | PixelPredictor
    if isinstance(caller, TileCaller):
        predictor = BlockPredictor(
            caller=caller,
            grid=grid,
            bands=tuple(bands),
            rules=rules,
            outputs=taken,
            derived=() if added_up else derived,
            blend=blend,
            skip_masked=options.skip_masked,
            augment=options.augment is not None,
            mapped=names,
        )
    else:
        predictor = PixelPredictor(caller, grid.affine, tuple(bands), rules, taken, derived, names)
    layout = lay_out_blocks(
        grid,
        georef.shape,
        chunk_grids(arrays[: len(bands)]),
        pixel_bytes(rules),
        1,
        centered=centered_axes(placed=False),
    )
    predicted = arrays_of_blocks(
        _NAME,
        arrays,
        [band.name for band in bands],
        layout,
        predictor,
        [_array_spec(output, added_up) for output in outputs],
        {block: predictor.window(layout, block) for block in layout.blocks()},
        steps=mapped,
        chunks=_chunks(layout, tiles.output, shape),
        version=(caller.connector.version(), derived),
    )
    return _result(outputs, predicted, mapped, dataset, place), Work(grid, lengths, predictor, layout)


def _array_spec(output: OutputBand, added_up: bool) -> ArraySpec:
    if added_up and isinstance(output, DerivedBand):
        return ArraySpec(output.name, output.dtype, output.shape, output.source, output.finish)
    return ArraySpec(output.name, output.dtype, output.shape)


def _result(
    outputs: Sequence[OutputBand],
    arrays: Sequence[da.Array],
    mapped: Mapping[Hashable, int],
    dataset: xr.Dataset,
    place: GeoRef,
) -> xr.Dataset:
    """Return the bands of the result with their dimensions, coordinates and georeference."""
    variables = {}
    for output, array in zip(outputs, arrays, strict=True):
        dims = (*mapped, *output.dims, place.y_dim, place.x_dim)
        variables[output.name] = _with_metadata(xr.Variable(dims, for_xarray(array)), output)
    coords = {dim: dataset.coords[dim].variable for dim in mapped if dim in dataset.coords}
    return write_georef(xr.Dataset(variables, coords), place, place.x_dim, place.y_dim)


def _with_derived(predicted: xr.Dataset, outputs: Sequence[OutputBand]) -> xr.Dataset:
    """Return a prediction with maps of classes, which are made from its probabilities."""
    found = derive_bands({str(name): band.variable for name, band in predicted.data_vars.items()}, outputs)
    made = {
        output.name: _with_metadata(found[output.name], output)
        for output in outputs
        if isinstance(output, DerivedBand)
    }
    return predicted.drop_vars(list(predicted.data_vars)).assign(found | made)


def _with_metadata(variable: xr.Variable, output: OutputBand) -> xr.Variable:
    """Return a variable with the value of masked pixels and the classes of a band."""
    if output.fill is not None:
        # GDAL needs NaN as _FillValue, too; in attrs, arithmetic could pass it on to integer variables.
        metadata = variable.encoding if math.isnan(output.fill) else variable.attrs
        metadata["_FillValue"] = variable.dtype.type(output.fill)
    if isinstance(output, DerivedBand) and output.is_map:
        variable.attrs |= output.classes.attrs()
    return variable


def _step_array(
    band: BandSpec,
    variable: xr.DataArray,
    georef: GeoRef,
    core: Size,
    mapped: Mapping[Hashable, int],
    step: tuple[int, ...],
) -> Any:
    """Return the chunked array of one step of a band; a band without a dimension is repeated along it."""
    index = {dim: position for dim, position in zip(mapped, step, strict=True) if dim in variable.dims}
    variable = variable.isel(index)
    missing = [dim for dim in band.dims if dim not in variable.dims]
    if missing:  # older versions of xarray load unchunked data here, also if nothing is missing
        variable = variable.expand_dims(missing)
    return plane_array(variable, band.dims, georef.y_dim, georef.x_dim, sides=core.shape)


def _chunks(layout: BlockLayout, output: Size, shape: Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return chunks of whole tiles, all of the same size as Zarr requires, about as large as blocks."""
    chunks = []
    for axis, side, length in ((layout.y, output.y, shape.y), (layout.x, output.x, shape.x)):
        centered = replace(axis, centered=True)  # usually aligned with the chunks of the image
        chunk = side * max(len(centered.owned(block)) for block in range(len(axis)))
        full, rest = divmod(length, chunk)
        chunks.append((chunk,) * full + ((rest,) if rest else ()))
    return chunks[0], chunks[1]
