"""Keep predictions beside a file until the file is complete, to continue an interrupted run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import dask.array as da
import xarray as xr
from dask.utils import format_bytes

from xee_tf.display import counted
from xee_tf.errors import DestinationExistsError, XeeTFError, warn
from xee_tf.identity import RunIdentity
from xee_tf.predict.image import Prediction
from xee_tf.predict.to_zarr import count_chunks, finished_chunks, is_empty, is_store_of, write_store
from xee_tf.signals import explain_interruption, if_interrupted
from xee_tf.storage import (
    Location,
    Staging,
    begin,
    clear_leftovers,
    discard,
    disk_usage,
    has_staged,
    is_finished,
    resumable_runs,
)
from xee_tf.upload import geotiff_files

__all__ = ["KeptPredictions", "discard_kept", "keep_predictions"]

_STORE = "predictions.zarr"
_CONTINUE = "run it again with if_exists='resume' to continue."


@dataclass(frozen=True)
class KeptPredictions:
    """Predictions in a Zarr store that exists until the GeoTIFF is complete.

    Parameters
    ----------
    prediction : Prediction
        What is predicted.
    run : Staging
        The run that writes the GeoTIFF; the store is in its staging folder.
    """

    prediction: Prediction
    run: Staging

    @property
    def store(self) -> Location:
        """The store."""
        return self.run.folder.child(_STORE)

    def write(self, description: RunIdentity, progress: bool) -> int:
        """Predict the chunks that are missing; return the number of those that were not."""
        return write_store(_numbered(self.prediction), self.store, self.run, description, progress)

    def arrays(self) -> Mapping[str, da.Array]:
        """Return the lazy bands of the store."""
        store = self.store
        found = xr.open_zarr(
            store.url, storage_options=store.zarr_options, mask_and_scale=False, decode_times=False
        )
        return {name: found[stored].data for name, stored in _stored_names(self.prediction).items()}

    @property
    def total(self) -> int:
        """The number of chunks."""
        return count_chunks(self.prediction)

    def finished(self) -> int:
        """Return the number of chunks that are not missing in the store."""
        return self.total if is_finished(self.store) else len(finished_chunks(self.store))

    def advice(self) -> str:
        """Say what a later run can use; empty if there is nothing."""
        try:
            finished = self.finished()
        except XeeTFError:  # the store cannot be reached
            return "Run it again with if_exists='resume' to continue."
        if not finished:
            return ""
        return (
            f"{finished:,} of {counted(self.total, 'chunk')} of predictions are kept in {self.run.folder}: "
            f"{_CONTINUE}"
        )


def _numbered(prediction: Prediction) -> Prediction:
    """Return a prediction without coordinates, with bands whose names Zarr can store."""
    names, dataset = _stored_names(prediction), prediction.dataset
    return replace(
        prediction,
        dataset=xr.Dataset({stored: dataset[name].variable for name, stored in names.items()}),
        outputs=tuple(replace(output, name=names[output.name]) for output in prediction.outputs),
    )


def _stored_names(prediction: Prediction) -> dict[str, str]:
    """Return the name of each band in the store: Zarr cannot store every name of a band of a GeoTIFF."""
    return {str(name): f"band-{number}" for number, name in enumerate(prediction.dataset.data_vars)}


def _finished(store: Location) -> int:
    """Return the number of chunks in a store of another prediction; each has a file if it is complete."""
    if not is_finished(store):
        return len(finished_chunks(store))
    return store.child("band-0").count_files()


@contextmanager
def keep_predictions(
    prediction: Prediction, file: Location, description: RunIdentity
) -> Iterator[KeptPredictions]:
    """Yield the place where predictions are kept, which may hold those of an interrupted run.

    It is deleted if the block succeeds, or if no chunk was finished. Otherwise, a note of the exception says
    where it is.

    Parameters
    ----------
    prediction : Prediction
        What is predicted.
    file : Location
        The GeoTIFF, which the block writes.
    description : RunIdentity
        What the values of the prediction depend on.

    Raises
    ------
    DestinationExistsError
        If the file exists, or an interrupted run wrote other predictions.
    """

    def existing() -> list[Location]:
        return [*([file] if file.exists() else []), *geotiff_files(file)]

    _discard_empty(file, description)
    try:
        run, earlier = begin(file, existing, "resume", identity=description)
    except DestinationExistsError as error:
        others = sum(_finished(each.folder.child(_STORE)) for each in resumable_runs(file))
        if others and not existing():
            chunks = counted(others, "finished chunk")
            raise DestinationExistsError(f"{error} That would delete its {chunks} of predictions.") from None
        raise
    kept = KeptPredictions(prediction, run)
    try:
        run.sign()
        earlier.start(run)
        _warn_of_full_disk(kept)
        outlook = f"Finished chunks of predictions are kept in {run.folder}: {_CONTINUE}"
        with if_interrupted(lambda: outlook):
            yield kept
    except BaseException as error:
        advice = kept.advice()
        if advice:
            run.release()
            if isinstance(error, KeyboardInterrupt):
                explain_interruption(error, advice, instead=True)
            else:
                error.add_note(advice)
        else:
            run.abort()
            explain_interruption(error, "No chunk was finished. Run it again.")
        raise
    discard(run)


def _discard_empty(file: Location, description: RunIdentity) -> None:
    """Delete what interrupted runs of other predictions left that had finished no chunk: nothing is lost."""
    for run in resumable_runs(file):
        if _has_nothing(run) and not is_store_of(run.folder.child(_STORE), description):
            discard(run)


def _has_nothing(run: Staging) -> bool:
    store = run.folder.child(_STORE)
    return is_empty(store) if store.exists() else not has_staged(run)  # runs of another kind have no store


def discard_kept(file: Location, description: RunIdentity) -> None:
    """Delete what runs left that were killed when their file was complete.

    Predictions that runs of other predictions have kept stay.
    """
    others = [
        run
        for run in resumable_runs(file)
        if not _has_nothing(run) and not is_store_of(run.folder.child(_STORE), description)
    ]
    clear_leftovers(file, committing=False, keep=others)


def _warn_of_full_disk(kept: KeptPredictions) -> None:
    """Warn if a local disk has less space than missing predictions need that cannot be compressed."""
    file = kept.run.destination
    if not file.is_local or (usage := disk_usage(file.path)) is None:
        return
    size = sum(band.nbytes for band in kept.prediction.dataset.data_vars.values())
    finished, total = kept.finished(), kept.total
    needed = math.ceil(size * (total - finished) / max(total, 1))
    if usage[0] < needed:
        what, remedy = (
            "the predictions",
            "choose another disk, or omit if_exists='resume', so that they are not kept",
        )
        if finished:
            what, remedy = "missing predictions", "free some space"
        warn(
            f"Until {file} is complete, {what} need up to {format_bytes(needed)} beside it, and the disk has "
            f"{format_bytes(usage[0])}. They may be compressed to less; otherwise, {remedy}."
        )
