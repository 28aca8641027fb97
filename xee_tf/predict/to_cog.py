"""Write a prediction to a cloud-optimized GeoTIFF."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Unpack

import dask.array as da
import xarray as xr

from xee_tf.identity import IdentityOptions, RunIdentity
from xee_tf.models import ModelSpec
from xee_tf.names import SPREAD
from xee_tf.options import IfExists, check_flags, parse, spelled
from xee_tf.predict.image import input_files, predict_image, require_model
from xee_tf.predict.keeping import discard_kept, keep_predictions
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.predict.resuming import identify_file, identify_run
from xee_tf.predict.to_zarr import Written, count_chunks
from xee_tf.signals import if_interrupted, interruptible
from xee_tf.storage import (
    Location,
    PathLike,
    recover,
    refuse_resuming,
    require_free,
    require_other,
    require_reachable,
    require_writable,
    resumable_runs,
)
from xee_tf.upload import (
    POLICIES,
    Nodata,
    Origin,
    OverviewResampling,
    check_resampling,
    methods_of,
    one_nodata,
    read_origin,
    require_format,
    write_raster,
)

__all__ = ["predict_to_cog", "write_cog"]

_SPELLING = replace(
    PREDICT_SPELLING,
    aliases={**PREDICT_SPELLING.aliases, **POLICIES},
    replaced={**PREDICT_SPELLING.replaced, "merge": "the file contains only predictions; omit it"},
)


_TO_KEEP = "To keep what is predicted before an interruption, call it with if_exists='resume'."


@spelled(_SPELLING, PredictOptions, IdentityOptions)
@interruptible()
def predict_to_cog(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    nodata: Nodata | None = None,
    overview_resampling: OverviewResampling = "nearest",
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictKeywords],
) -> Location:
    """Predict every pixel of a raster and write a cloud-optimized GeoTIFF (COG).

    Each chunk is written when it is predicted, all bands from one call of the model, so that the whole result
    is never in memory.

    Parameters
    ----------
    model : Model
        The model to predict with.
    image : Dataset or DataArray
        The raster, as for `xee_tf.Model.predict_image`.
    destination : str or path-like
        The ``.tif`` or ``.tiff`` file to write: a local path or a URL that fsspec supports. It appears when
        it is complete.
    **options
        Options of `xee_tf.Model.predict_image`, except `merge`.
    nodata : float or mapping of str to float, optional
        Value that marks missing pixels in the file, the same for all bands; see `xee_tf.to_cog`. By default,
        a value that is not a valid value of any band: NaN for floats.
    overview_resampling : {"nearest", "mean", "mode"} or mapping of str to these, default "nearest"
        How the overviews are computed, for all bands or by band; see `xee_tf.to_cog`.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the destination or one of its side files (``.aux.xml``, ``.ovr``, ``.msk``, world files,
        RPCs) exists, or a run was interrupted. "overwrite" replaces them when the new file is complete.
        "resume" keeps finished predictions until the file is complete, and does nothing if the file exists
        and "resume" wrote it from the same inputs with the same options; another file is an error. Both
        "error" and "resume" continue an interrupted run that kept predictions; only "overwrite" deletes
        these.
    progress : bool, default False
        Whether to show a progress bar.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Location
        The destination, which is path-like: `os.fspath` returns its local path or URL.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the destination exists or cannot be written, or it or an interrupted run has other predictions; the
        message contains the difference.
    OptionError, GeoreferenceError, ModelError
        As raised by `xee_tf.Model.predict_image` and `xee_tf.to_cog`.
    PredictionError
        If the model fails or returns something other than what was declared.
    RecordError
        If the common dtype of the bands cannot represent a value, or a valid pixel has the value `nodata`.

    See Also
    --------
    predict_to_zarr : Keep the dtype of each band.
    xee_tf.to_cog : Write any lazy raster.

    Notes
    -----
    All bands of a GeoTIFF have the same dtype and the same nodata value; see `xee_tf.to_cog`. Only a file of
    one band keeps the colours of a map of classes: to write its confidence, too, call `predict_to_zarr`, and
    write each band of the store with `xee_tf.to_cog`.

    With ``if_exists="resume"``, predictions are first written to a Zarr store in a hidden folder beside the
    destination, also in a bucket, and the file is made from this store, which is then deleted. It needs up to
    the size of all bands without compression (`result_bytes` of `xee_tf.Model.plan`), in addition to what
    `xee_tf.to_cog` needs. If the call fails or is interrupted, or its process is killed, call it again with
    the same arguments: finished chunks are not predicted again. `nodata`, `overview_resampling`, `batch_size`
    and `skip_masked` may differ; for everything else that must be the same, see `xee_tf.predict_to_zarr`.
    The complete file tells what it was written from, in a note behind its last tile, where readers of
    GeoTIFFs do not look. A program that changes or converts the file drops the note, or makes it invalid. The
    note does not contain paths, but its bytes depend on the paths and times of files that are inputs. If a
    part of the inputs cannot be compared (see `identity`), there is no note. Files that are written without
    ``if_exists="resume"`` have none, because it takes time to compare the inputs.

    With "error", an interrupted run that kept predictions is continued in the same way, or an error says what
    differs; without such a run, nothing is kept. With "overwrite", nothing is kept, and what an interrupted
    run has kept is deleted.

    Values of integer outputs are truncated and clamped to the range of the dtype declared in the model's
    `output_bands`, as in Earth Engine. An output whose dtype is neither declared nor part of the model's
    signature is float32, even if the model returns integers.

    Examples
    --------
    >>> import numpy as np, rasterio, tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> file = predict_to_cog(model, scene, tempfile.mkdtemp() + "/twice.tif")
    >>> with rasterio.open(file.path) as opened:
    ...     opened.descriptions, float(opened.read(1)[3, 3])
    (('twice',), 30.0)
    """
    written = write_cog(
        model,
        image,
        destination,
        parse(PredictOptions, options),
        nodata=nodata,
        overview_resampling=overview_resampling,
        if_exists=if_exists,
        identity=identity,
        progress=progress,
        storage_options=storage_options,
    )
    return written.location


def write_cog(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    options: PredictOptions,
    *,
    nodata: Nodata | None = None,
    overview_resampling: OverviewResampling = "nearest",
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Written:
    """Write predictions and say what an earlier run had finished; see `predict_to_cog`."""
    check_flags(progress=progress)
    identity = IdentityOptions(identity=identity).identity
    location = Location.of(destination, storage_options)
    require_format(location, "tif", "Use xee_tf.predict_to_zarr for a .zarr.")
    require_other(location, input_files(image))
    origin = _origin_of_existing(location, if_exists)
    require_writable(location)
    if if_exists == "error" and resumable_runs(location):
        if_exists = "resume"  # predictions are expensive: only "overwrite" deletes them
    require_model(model)
    names = _declared_bands(model, options)  # before the model is opened
    check_resampling(overview_resampling, names)
    one_nodata(nodata, names)
    prediction = predict_image(model, image, options, merge=False)
    predicted = prediction.dataset
    example = f"output_bands={{{next(iter(predicted.data_vars))!r}: 'int32'}}"
    remedy = f"declare smaller types, for example {example}, or write a .zarr."

    def write(
        computed: Callable[[], Mapping[str, da.Array]] | None = None,
        identity: RunIdentity | None = None,
    ) -> None:
        write_raster(
            predicted,
            location,
            overview_resampling,
            nodata=nodata,
            if_exists=if_exists,
            progress=progress,
            remedy=remedy,
            computed=computed,
            all_declared=True,
            origin=identity.to_json() if identity is not None and identity.is_known else None,
        )

    chunks, finished = count_chunks(prediction), 0
    if if_exists != "resume":
        try:
            with if_interrupted(lambda: f"Nothing is kept: run it again to begin anew. {_TO_KEEP}"):
                write()
        except KeyboardInterrupt as error:
            error.add_note(_TO_KEEP)
            raise
        return Written(location, chunks, finished)
    require_reachable(location, zarr=True)
    description = identify_run(model, prediction, identity)
    written = list(map(str, predicted.data_vars))
    of_file = identify_file(
        description,
        nodata=one_nodata(nodata, written),
        overview_resampling=", ".join(methods_of(overview_resampling, written)),
    )
    if origin is not None:
        _require_same(location, origin, of_file)
        discard_kept(location, description)
        return Written(location, chunks, chunks, complete=True)

    def kept_arrays() -> Mapping[str, da.Array]:
        nonlocal finished
        finished = kept.write(description, progress)
        return kept.arrays()

    with keep_predictions(prediction, location, description) as kept:
        write(kept_arrays, of_file)
    return Written(location, chunks, finished)


def _origin_of_existing(location: Location, if_exists: IfExists) -> Origin | None:
    """Return what an existing file tells that this run may have written; raise an error about any other."""
    # A run that was killed when it had put its file in place, but had not noted it, is complete.
    if if_exists != "resume" or recover(location) or not location.is_file():
        require_free(location, if_exists)
        return None
    origin = read_origin(location)
    if origin is None:
        refuse_resuming(
            location,
            "it does not tell what it was written from, as files do that this function wrote with "
            "if_exists='resume', and that were not changed since",
        )
    return origin


def _require_same(location: Location, origin: Origin, identity: RunIdentity) -> None:
    """Raise an error if a complete file is not the one that a run would write."""
    difference = identity.explain_difference(origin.identity)
    for name in origin.side_files:
        if not difference and not location.parent.child(name).exists():
            difference = f"{name}, which belongs to it, is missing"
    if difference:
        refuse_resuming(location, difference)


def _declared_bands(model: ModelSpec, options: PredictOptions) -> list[str] | None:
    """Return the names of the bands that are written; None if the model does not declare its outputs."""
    if model.output_bands is None:
        return None
    kinds = model.output_bands
    second = [kind.confidence for kind in kinds.values() if kind.confidence is not None]
    spreads = [name + SPREAD for name, kind in kinds.items() if options.augment and kind.classes is None]
    return [*kinds, *second, *spreads]
