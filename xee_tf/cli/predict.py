"""``xee-tf predict`` and its plan."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from dask.utils import format_bytes

import xee_tf
from xee_tf.cli.command import command, planned
from xee_tf.cli.groups import ExistingOptions, RasterOptions
from xee_tf.cli.loading import model_at, model_options
from xee_tf.cli.options import FilePath, Flag, Name, Names, Number, Size, Value
from xee_tf.cli.outcome import Outcome, attributes, grid_values
from xee_tf.display import counted
from xee_tf.errors import OptionError
from xee_tf.georef import Conventions, check_conventions
from xee_tf.models import ModelUnit
from xee_tf.options import parse
from xee_tf.predict import Blend, PredictOptions, Written, write_cog, write_zarr
from xee_tf.remote import PredictionStats, RemoteConnector, Route
from xee_tf.remote.payloads import PayloadFormat
from xee_tf.storage import Location
from xee_tf.upload import Resampling, raster_format, require_no_overviews

__all__ = ["plan_predict", "predict"]

_HOSTED = Group("Models on servers", sort_key=3)


@command(xee_tf.Model, xee_tf.Model.predict_image, cluster=True)
def predict(
    model: FilePath,
    rasters: list[FilePath],
    destination: FilePath,
    /,
    *,
    source: RasterOptions,
    bands: Names = None,
    input_name: Annotated[str | None, Name] = None,
    array_dims: Annotated[Names, Parameter(negative="--no-array-dims")] = None,
    unit: ModelUnit = "tile",
    input_tile_size: Size = None,
    input_overlap_size: Size = None,
    output_tile_size: Size = None,
    output_bands: Annotated[Names, Parameter(metavar="NAME[=TYPE][,NAME...]")] = None,
    class_map: Annotated[Names, Parameter(metavar="[VALUE:]NAME[=COLOR][,...]")] = None,
    signature: Annotated[str | None, Name] = None,
    batch_size: Annotated[int | None, Number] = None,
    blend: Blend = "crop",
    augment: Literal["d4"] | None = None,
    nodata: Annotated[int | float | None, Value] = None,
    overview_resampling: Resampling = "nearest",
    conventions: Conventions = "cf",
    payload_format: Annotated[PayloadFormat | None, Parameter(group=_HOSTED)] = None,
    route: Annotated[Route | None, Parameter(group=_HOSTED)] = None,
    b64: Annotated[Flag, Parameter(group=_HOSTED)] = False,
    credentials: Annotated[Literal["google", "none"] | None, Parameter(group=_HOSTED)] = None,
    max_payload_bytes: Annotated[int | None, Parameter(metavar="BYTES", group=_HOSTED)] = None,
    max_concurrency: Annotated[int | None, Parameter(metavar="NUMBER", group=_HOSTED)] = None,
    timeout: Annotated[float | None, Parameter(metavar="SECONDS", group=_HOSTED)] = None,
    deadline: Annotated[float | None, Parameter(metavar="SECONDS", group=_HOSTED)] = None,
    price_per_million_requests: Annotated[
        float | None,
        Parameter(name=("--price-per-million-requests", "--price"), metavar="PRICE", group=_HOSTED),
    ] = None,
    existing: ExistingOptions,
    progress: bool = True,
    plan: bool = False,
) -> Outcome:
    """Predict every pixel of rasters on one grid with a model on disk, in a bucket or on a server.

    A Zarr store is resumed after an interruption; so is a .tif that was begun with --resume.

    Example: xee-tf predict model.keras scene.tif map.tif --bands B4,B3,B2 --input-tile-size 256

    Parameters
    ----------
    model
        Folder of a SavedModel, a .keras, .h5 or .onnx file, or the .json file of a STAC item with the Machine
        Learning Model extension: a path or a URL, such as s3://bucket/model.keras. Or a model on a server:
        http://models:8501/v1/models/NAME or grpc://models:8500/NAME, each also with /versions/3 or
        /labels/stable; or an endpoint of Vertex AI, projects/PROJECT/locations/REGION/endpoints/ID, or its
        URL, which may end with :rawPredict.
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files. A file with one band gives its name to the
        band: B4 for B4.tif. Several bands of one file keep the names that the file contains, or are named B1,
        B2, ...; if several files are given, scene_1, scene_2, ... after their file. Bands of Zarr stores and
        NetCDF files keep their names.
    destination
        Output: a .tif file (a cloud-optimized GeoTIFF) or a .zarr folder.
    input_name
        The input in which the bands are stacked, for a model with several inputs, and for one on a server
        that does not say the names of its inputs, such as Vertex AI.
    array_dims
        Dimensions, such as time, that the model takes as a whole, in the order of its input. Each step of any
        other dimension is predicted separately. With --no-array-dims this holds for all dimensions. Default:
        the dimensions of the model's input.
    unit
        What the model takes: tiles, or single pixels, for a model without spatial context, such as a dense or
        recurrent network. Masked pixels are not sent then, and there are no sizes of tiles.
    input_overlap_size
        Pixels added along each edge of a tile, as in Earth Engine's reference and code samples: the model
        takes the tile size plus twice the overlap. The overlap may be larger than the tile: a classifier of
        3 x 3 neighborhoods has a tile of 1 and an overlap of 1.
    output_bands
        Names of the outputs, with types that differ from the model's own: forest=uint8,water. Default: the
        outputs of the model.
    class_map
        Write a band "class" of the most probable class of each pixel, instead of the probabilities, which
        are the channels of the model's only output. Names of the classes in the order of the channels, with
        their values, colors, or both: "forest,water", "1:forest=#2f7d4f,5:water=#2e7ebf". Default of the
        values: 0, 1, ...
    signature
        Signature of a SavedModel or of a model on a server. Default: serving_default.
    nodata
        Value of masked pixels of a .tif, the same for all bands. Default: a value that no band can have.
    overview_resampling
        How the overviews of a .tif are computed from pixels that are not missing: mean for measurements, mode
        for classes.
    conventions
        Conventions of the georeference of a .zarr: cf+zarr adds the attributes of the Zarr conventions proj
        and spatial to those of CF.
    payload_format
        Format of the requests, as in Earth Engine. Default: depends on the server.
    route
        Method of an endpoint of Vertex AI. Default: depends on the format and the signature.
    b64
        For serialized tensors: the model takes TensorProtos, which the server decodes.
    credentials
        "google" for Google's application default credentials, or "none". Default: google for Vertex AI.
    max_payload_bytes
        Maximum size of a request. Default: 1500000.
    max_concurrency
        Maximum number of concurrent requests, over all workers. Default: 8.
    timeout
        Maximum duration of one attempt at a request. Default: 60.
    deadline
        Maximum duration of a request with its retries. Default: 300.
    price_per_million_requests
        Price of a million requests in any currency: the plan and the result then have the cost.
    overwrite
        Replace an existing destination.
    resume
        Keep finished predictions for a .tif in a hidden folder beside it until it is complete, and continue
        an interrupted run with them. The folder needs up to the size of all bands without compression. Each
        call with this option can be continued, also without it; a Zarr store always can. Only --overwrite
        deletes what is kept. If the .tif is complete, and was written with this option from the same rasters
        with the same model and options, nothing is done.
    """
    location = Location.of(destination)
    output_format = raster_format(location)
    check_conventions(conventions, zarr=output_format == "zarr")
    if output_format != "tif":
        require_no_overviews(overview_resampling)
        if nodata is not None:
            raise OptionError("nodata is for a .tif; a Zarr store has a value for each band. Omit it.")
    image = source.open(rasters)
    options = model_options(
        image,
        bands=bands,
        array_dims=array_dims,
        output_bands=output_bands,
        class_map=class_map,
        input_name=input_name,
        unit=unit,
        input_tile_size=input_tile_size,
        input_overlap_size=input_overlap_size,
        output_tile_size=output_tile_size,
    )
    hosted: dict[str, Any] = {
        "payload_format": payload_format,
        "route": route,
        "b64": b64 or None,
        "max_payload_bytes": max_payload_bytes,
        "max_concurrency": max_concurrency,
        "timeout": timeout,
        "deadline": deadline,
    }
    hosted = {name: value for name, value in hosted.items() if value is not None}
    if credentials is not None:
        hosted["credentials"] = None if credentials == "none" else credentials
    opened = model_at(model, signature=signature, hosted=hosted, **options)
    how: dict[str, Any] = {"batch_size": batch_size, "blend": blend, "augment": augment, "crs": source.crs}
    if plan:
        return _plan(opened.plan(image, price_per_million_requests=price_per_million_requests, **how))
    of_file: dict[str, Any] = {"nodata": nodata, "overview_resampling": overview_resampling}
    to: dict[str, Any] = {"if_exists": existing.if_exists, "progress": progress}
    choices = parse(PredictOptions, how)
    is_hosted = isinstance(opened.connector, RemoteConnector)
    before = opened.stats() if is_hosted else PredictionStats()
    if output_format == "tif":
        written = write_cog(opened, image, location, choices, **of_file, **to)
    else:
        written = write_zarr(opened, image, location, choices, conventions=conventions, **to)
    values = {"destination": written.location, **attributes(written, "chunks", "finished")}
    lines = [_describe(written)]
    if is_hosted:
        spent = _spent(before, opened.stats(), price_per_million_requests)
        values |= spent
        lines.append(_describe_requests(spent))
    return Outcome("\n".join(lines), values)


plan_predict = planned(
    predict,
    """Show what "xee-tf predict" would do with the same options.

    The tiles, requests, bytes, cost, tasks and memory of the prediction are shown. No pixel is read, no tile
    is sent, and nothing is written.

    Example: xee-tf plan predict model.keras scene.tif map.tif --input-tile-size 256
    """,
)


def _plan(found: xee_tf.PredictPlan) -> Outcome:
    names = ("model", "unit", "tiles", "batch_size", "batches", "requests", "request_bytes", "exact", "cost")
    values = {
        **attributes(found, *names),
        "bytes_sent": found.sent,
        "bytes_received": found.received,
        **grid_values(found.grid, "tile_size"),
        "bands": [band.name for band in found.bands],
        **attributes(found, "result_bytes", "tasks", "source_chunks", "task_memory", "peak_memory"),
        "warnings": found.warnings,
    }
    return Outcome(str(found), values)


def _describe(written: Written) -> str:
    """Say what was written, and what an earlier run had finished."""
    if not written.finished:
        return f"Wrote {written.location}"
    if written.complete:
        return f"{written.location} was already complete: nothing was predicted."
    finished = f"{written.finished:,} of {written.chunks:,} chunks were already finished"
    return f"Wrote {written.location}. Continued: {finished}."


def _spent(before: PredictionStats, after: PredictionStats, price: float | None) -> dict[str, Any]:
    """Return the requests of a run; a long-lived cluster also counts those of earlier runs."""
    spent = {
        name: getattr(after, name) - getattr(before, name)
        for name in ("requests", "retries", "failures", "bytes_sent", "bytes_received")
    }
    return spent | {"cost": None if price is None else spent["requests"] * price / 1e6}


def _describe_requests(spent: dict[str, Any]) -> str:
    cost = "" if spent["cost"] is None else f"; cost {spent['cost']:,.4g}"
    return (
        f"{counted(spent['requests'], 'request')}, {counted(spent['retries'], 'retry', 'retries')}: "
        f"{format_bytes(spent['bytes_sent'])} sent, {format_bytes(spent['bytes_received'])} received{cost}"
    )
