"""Write a prediction to Zarr chunk by chunk, and continue an interrupted run."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Unpack, get_args

import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.blocks import chunk_edges
from xee_tf.display import counted
from xee_tf.errors import DestinationExistsError, OptionError, XeeTFError
from xee_tf.georef import Conventions, add_conventions, check_conventions
from xee_tf.graph import Counted, each_chunk, run_graph
from xee_tf.identity import IdentityOptions, RunIdentity
from xee_tf.models import ModelSpec
from xee_tf.names import check_zarr
from xee_tf.options import IfExists, check_flags, one_of, parse, spelled
from xee_tf.predict.image import RENAME, Prediction, input_files, predict_image
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.predict.resuming import identify_run, identify_store, result_georef
from xee_tf.signals import explain_interruption, if_interrupted, interruptible
from xee_tf.storage import (
    BEGUN,
    COMPLETE,
    RECORD,
    Location,
    PathLike,
    Staging,
    StoredBand,
    beside,
    claim,
    clear_store,
    earlier_store,
    explain_changes,
    finish_store,
    has_root,
    hide_store,
    is_finished,
    prepare_store,
    read_record,
    recover,
    refuse_resuming,
    remove_other_runs,
    remove_temporary_files,
    replace_store,
    require_other,
    require_own_store,
    require_reachable,
    require_writable,
    staged_runs,
    stored_bands,
    to_storable,
)
from xee_tf.upload import require_format

__all__ = [
    "Written",
    "count_chunks",
    "finished_chunks",
    "is_empty",
    "is_store_of",
    "predict_to_zarr",
    "write_store",
    "write_zarr",
]

_SPELLING = replace(
    PREDICT_SPELLING,
    replaced={**PREDICT_SPELLING.replaced, "merge": "the store contains only predictions; omit it"},
    renamed={"store": "destination"},
)

# A key in the record of a store, and a folder next to the record with an empty file for each finished chunk,
# which exists only while the store is written.
_DESCRIPTION, _FINISHED = "prediction", "finished"
_TASKS = "xee-tf-write"


@spelled(_SPELLING, PredictOptions, IdentityOptions)
@interruptible()
def predict_to_zarr(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    *,
    resume: bool = True,
    if_exists: IfExists = "error",
    identity: str | None = None,
    conventions: Conventions = "cf",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictKeywords],
) -> Location:
    """Predict every pixel of a raster and write a Zarr store; a repeated call resumes an interrupted run.

    Each chunk is written when it is predicted, so that the whole result is never in memory.

    Parameters
    ----------
    model : Model
        The model to predict with.
    image : Dataset or DataArray
        The raster, as for `xee_tf.Model.predict_image`. Its coordinates are also stored if Zarr
        supports them and they are not lazy: text, numbers and times.
    destination : str or path-like
        The ``.zarr`` folder to write: a local path or a URL that fsspec supports.
    **options
        Options of `xee_tf.Model.predict_image`, except `merge`.
    resume : bool, default True
        Whether to resume an interrupted run and keep a complete store. False starts again and requires
        ``if_exists="overwrite"`` if the store exists.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the store exists and cannot be resumed, or `resume` is False. "overwrite" replaces only
        empty folders and stores that this package wrote: the new store is staged in a hidden folder beside
        the old one, which is kept until the new one is complete. "error" and "resume" are the same here, and
        replace an unfinished prediction only if none of its chunks was finished, unless `resume` is False.
    conventions : {"cf", "cf+zarr"}, default "cf"
        Conventions of the georeference. "cf+zarr" adds the attributes of the Zarr conventions proj and
        spatial (``proj:code``, ``spatial:transform`` and so on) to those of CF.
    progress : bool, default False
        Whether to show a progress bar.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Location
        The store, which is path-like: open it with ``xr.open_zarr(store, decode_coords="all")``.
        `os.fspath` returns its local path or URL.

    Raises
    ------
    DestinationExistsError
        If the store exists and contains other predictions or data, or `resume` is False; the message contains
        the difference.
    DestinationError
        If the store cannot be written.
    OptionError, GeoreferenceError, ModelError
        As raised by `xee_tf.Model.predict_image`.
    PredictionError
        If the model fails or returns something other than what was declared. Finished chunks are kept.

    Notes
    -----
    The store cannot be opened before it is complete, because the metadata of its root are written last. A
    chunk is recorded in the folder ``.xee_tf`` inside the store when all its bands are written. Recorded
    chunks are not predicted again; partly written chunks are. An unfinished store can be moved and resumed
    elsewhere. Another call does not change a complete store, unless some of its files are missing: then all
    of it is predicted again.

    Only one run at a time writes to a store: while the file ``.<name>.writer`` beside it names a process that
    exists, other runs are refused. Processes renew this file, because those of other machines cannot be
    checked: they count as existing for one hour after that. In an object store, where objects cannot be
    renamed, the objects of a complete new store are copied over the old one: the old store is lost as soon as
    this begins, and neither can be opened until it has ended. If it is interrupted, the next call completes
    it.

    A run is continued only if everything that affects its values is the same: the code and weights of the
    model, its options, the options of the prediction, and the bands, nodata values, georeference and arrays
    of the image; see `identity`. `batch_size` and `skip_masked` may change; `conventions`, which the metadata
    of a store follow from the beginning, may not.

    Values of integer outputs are truncated and clamped to the range of the dtype declared in the model's
    `output_bands`, as in Earth Engine. An output whose dtype is neither declared nor part of the model's
    signature is float32, even if the model returns integers.

    Examples
    --------
    >>> import tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> store = predict_to_zarr(model, scene, tempfile.mkdtemp() + "/twice.zarr")
    >>> predicted = xr.open_zarr(store, decode_coords="all")
    >>> float(predicted.twice[3, 3]), predicted.rio.crs.to_string()
    (30.0, 'EPSG:32633')
    """
    written = write_zarr(
        model,
        image,
        destination,
        parse(PredictOptions, options),
        resume=resume,
        if_exists=if_exists,
        identity=identity,
        conventions=conventions,
        progress=progress,
        storage_options=storage_options,
    )
    return written.location


@dataclass(frozen=True)
class Written:
    """Predictions in a store or file, their number of chunks, and how many were finished before the call.

    `complete` says that nothing was left to write.
    """

    location: Location
    chunks: int
    finished: int
    complete: bool = False


def write_zarr(
    model: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    destination: PathLike | Location,
    options: PredictOptions,
    *,
    resume: bool = True,
    if_exists: IfExists = "error",
    identity: str | None = None,
    conventions: Conventions = "cf",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
) -> Written:
    """Write predictions and say what an earlier run had finished; see `predict_to_zarr`."""
    one_of("if_exists", if_exists, get_args(IfExists))
    check_flags(resume=resume, progress=progress)
    check_conventions(conventions)
    if if_exists == "resume" and not resume:
        raise OptionError("if_exists='resume' contradicts resume=False: omit one of them.")
    location = Location.of(destination, storage_options)
    require_format(location, "zarr", "Use xee_tf.predict_to_cog for a .tif.")
    require_reachable(location, zarr=True)
    require_other(location, input_files(image))
    identity = IdentityOptions(identity=identity).identity
    prediction = predict_image(model, image, options, merge=False)
    predicted = add_conventions(prediction.dataset, result_georef(prediction.dataset), conventions)
    prediction = replace(prediction, dataset=predicted)
    check_zarr(predicted.variables, location, RENAME)
    description = identify_store(identify_run(model, prediction, identity), conventions=conventions)
    require_writable(location)
    with claim(beside(location)) as run:
        recover(run.destination)
        earlier = earlier_store(run.destination)
        run, target = _find_target(run, description, resume=resume, overwrite=if_exists == "overwrite")
        run.sign()
        done = target == run.destination and _is_complete(target, predicted.data_vars)
        remove_other_runs(run, _other_predictions(run, description) if done else ())
        try:
            with if_interrupted(lambda: f"Finished chunks are kept in {target}: run it again to continue."):
                finished = write_store(prediction, target, run, description, progress)
            if target != run.destination:
                replace_store(run, earlier)
        except BaseException as error:
            if target == run.destination:
                run.end()
            kept = _kept(target, prediction)
            if isinstance(error, KeyboardInterrupt):
                explain_interruption(error, kept or "No chunk was finished. Run it again.")
            elif kept:
                error.add_note(kept)
            raise
        finally:
            if target == run.destination:
                run.remove()  # otherwise, it contains a store that can be resumed
    return Written(location, count_chunks(prediction), finished, done)


def _find_target(
    run: Staging, description: RunIdentity, *, resume: bool, overwrite: bool
) -> tuple[Staging, Location]:
    """Return where to write: the destination, or the staging folder of a run if there is a store to keep."""
    store = run.destination
    staged = _interrupted_run(run, description) if resume else None
    if not store.exists():
        return (staged, staged.staged(store)) if staged is not None else (run, store)
    difference = _explain_difference(store, description) if resume else "resume is False"
    if not difference:
        return run, store
    if not overwrite:
        if not resume or _DESCRIPTION not in read_record(store) or is_finished(store):
            refuse_resuming(store, difference)
        if not is_empty(store):
            finished = counted(len(finished_chunks(store)), "finished chunk")
            raise DestinationExistsError(
                f"{store} is an unfinished prediction with {finished}, which cannot be continued: "
                f"{difference}. Begin again with if_exists='overwrite', or choose another name."
            )
    require_own_store(store)
    if not has_root(store):  # it is empty or unfinished
        clear_store(store, run)
        return run, store
    chosen = staged or run
    return chosen, chosen.staged(store)


def _other_predictions(run: Staging, description: RunIdentity) -> list[Staging]:
    """Return earlier runs that staged another prediction, which may be resumed."""
    found = []
    for each in _staged_predictions(run):
        record = read_record(each.staged(run.destination))
        if description.explain_difference(record[_DESCRIPTION]):
            found.append(each)
    return found


def _staged_predictions(run: Staging) -> list[Staging]:
    """Return earlier runs that staged a prediction, complete or not; they have lost their claims."""
    runs = staged_runs(run.destination)
    return [each for each in runs if _DESCRIPTION in read_record(each.staged(run.destination))]


def _interrupted_run(run: Staging, description: RunIdentity) -> Staging | None:
    """Return an earlier run that staged the same prediction, complete or not."""
    for other in _staged_predictions(run):
        if not _explain_difference(other.staged(run.destination), description):
            return other
    return None


def write_store(
    prediction: Prediction, store: Location, run: Staging, description: RunIdentity, progress: bool
) -> int:
    """Write all chunks that are missing in a store that is new or contains a part of the same prediction.

    Return the number of chunks that were not missing.
    """
    predicted = prediction.dataset
    bands = {str(name): band.data for name, band in predicted.data_vars.items()}
    remove_temporary_files(store)
    chunks = _outer_chunks(prediction)
    if _is_complete(store, bands):
        _remove_markers(store)
        return count_chunks(prediction)
    record = read_record(store)
    if record.get("state") == COMPLETE:  # files are missing, and it is unknown of which chunks
        hide_store(store)
        _remove_markers(store)
    elif "root" not in record or record.get("state", BEGUN) == BEGUN:
        clear_store(store, run)
        prepare_store(to_storable(predicted), store, run, **{_DESCRIPTION: description.to_json()})
    finished = finished_chunks(store)
    indices = [index for index in np.ndindex(*map(len, chunks)) if _chunk_name(index) not in finished]
    if indices:
        if has_root(store):
            hide_store(store)
        edges = tuple(map(chunk_edges, chunks))
        writer = _ChunkWriter(tuple(stored_bands(store, bands, run)), _markers(store), edges)
        written = each_chunk(writer, list(bands.values()), indices, _TASKS)
        shown = Counted(_TASKS, "chunk", "predicted", before=len(finished)) if progress else None
        run_graph(written, shown)
    finish_store(store, files=_count_files(store, bands))
    _remove_markers(store)
    return len(finished)


@dataclass(frozen=True)
class _ChunkWriter:
    """Write one chunk of all bands and mark it as finished. Small and picklable.

    `edges` are the boundaries of chunks along mapped dimensions, y and x.
    """

    bands: tuple[StoredBand, ...]
    markers: Location
    edges: tuple[tuple[int, ...], ...]

    def __call__(self, index: tuple[int, ...], blocks: Sequence[npt.NDArray[Any]]) -> None:
        spans = [slice(*edge[number : number + 2]) for edge, number in zip(self.edges, index, strict=True)]
        for band, block in zip(self.bands, blocks, strict=True):
            inner = [slice(None)] * (block.ndim - len(spans))
            band[(*spans[:-2], *inner, *spans[-2:])] = block
        self.markers.child(_chunk_name(index)).write_bytes(b"")


def _markers(store: Location) -> Location:
    return store.child(RECORD).child(_FINISHED)


def finished_chunks(store: Location) -> set[str]:
    """Return the names of the finished chunks of an unfinished store."""
    markers = _markers(store)
    names = markers.entries() if markers.exists() else ()
    return {name for name in names if not name.startswith(".")}  # without temporary files of a killed run


def is_empty(store: Location) -> bool:
    """Return whether nothing is lost if a store, which need not exist, is deleted: no chunk was finished."""
    return read_record(store).get("state") != COMPLETE and not finished_chunks(store)


def is_store_of(store: Location, description: RunIdentity) -> bool:
    """Return whether a store, complete or not, has the predictions of a run."""
    return not description.explain_difference(read_record(store).get(_DESCRIPTION))


def _kept(store: Location, prediction: Prediction) -> str:
    """Say what a later run can use; empty if there is nothing."""
    total = count_chunks(prediction)
    with suppress(XeeTFError):  # the store cannot be reached
        if finished := total if is_finished(store) else len(finished_chunks(store)):
            return f"{finished:,} of {counted(total, 'chunk')} are kept in {store}: run it again to continue."
    return ""


def _remove_markers(store: Location) -> None:
    if _markers(store).exists():
        _markers(store).remove(recursive=True)


def _explain_difference(store: Location, description: RunIdentity) -> str:
    """Return why a store, complete or not, is not the store that would be written; empty if it is."""
    record = read_record(store)
    if _DESCRIPTION not in record:
        return "it does not contain a prediction that was written by this function"
    return description.explain_difference(record[_DESCRIPTION]) or explain_changes(store)


def _is_complete(store: Location, bands: Iterable[Hashable]) -> bool:
    """Return whether all chunks were written and none of their files is missing."""
    record = read_record(store)
    if record.get("state") != COMPLETE or not has_root(store):
        return False
    return bool(_count_files(store, bands) >= record.get("files", 0))


def _count_files(store: Location, bands: Iterable[Hashable]) -> int:
    return sum(store.child(str(band)).count_files() for band in bands)


def count_chunks(prediction: Prediction) -> int:
    """Return how many chunks of a prediction are written one by one, each with all bands."""
    return math.prod(map(len, _outer_chunks(prediction)))


def _outer_chunks(prediction: Prediction) -> tuple[tuple[int, ...], ...]:
    """Return the chunks along mapped dimensions, y and x, which are the same for all bands."""
    output = prediction.outputs[0]
    chunks = prediction.dataset[output.name].chunks or ()
    return (*chunks[: -2 - len(output.dims)], *chunks[-2:])


def _chunk_name(index: tuple[int, ...]) -> str:
    return "-".join(map(str, index))
