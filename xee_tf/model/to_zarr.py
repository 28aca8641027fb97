"""A prediction written to Zarr chunk by chunk, that goes on where an interrupted one stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt
import xarray as xr

from xee_tf.errors import DestinationExistsError
from xee_tf.georef import read_georef
from xee_tf.graph import each_chunk, run_graph
from xee_tf.model.image import inner_dims, predict_image
from xee_tf.model.options import PREDICT_SPELLING, PredictOptions
from xee_tf.model.spec import Model
from xee_tf.names import check_zarr
from xee_tf.options import spelled
from xee_tf.storage import Location, PathLike

__all__ = ["predict_to_zarr"]

_SPELLING = replace(
    PREDICT_SPELLING,
    replaced={**PREDICT_SPELLING.replaced, "merge": "the store holds predictions alone; leave it out"},
)

_WHAT = "xee_tf_prediction"  # the attribute of a store that says what it is
_BEGUN, _PREPARED, _CHUNK = "begun", "prepared", "chunk-"  # notes beside it, while it is written


@spelled(_SPELLING, further=PredictOptions.__annotations__)
def predict_to_zarr(
    model: Model,
    image: xr.Dataset | xr.DataArray,
    store: PathLike | Location,
    *,
    resume: bool = True,
    if_exists: Literal["error", "overwrite"] = "error",
    progress: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    **options: Unpack[PredictOptions],
) -> Location:
    """Predict a raster into a Zarr store; call it again and it continues where it was interrupted.

    Each chunk is noted, in a folder ``<store>.progress`` beside the store, when all its bands are written:
    what is noted is never predicted again, and what an interruption left half-written is. The folder goes
    when all is there; a store that is complete is left alone.

    Parameters
    ----------
    model : Model
    image : Dataset or DataArray
        The same one when a run is continued; that is not checked beyond its bands, grid and dtypes.
    store : str or path-like
        ``.zarr`` folder, local or any URL that fsspec knows.
    resume : bool
        Continue what is there. False: begin anew.
    if_exists : {"error", "overwrite"}, optional
        What to do with a store that cannot be continued, or shall not be.
    progress : bool
        Show a bar.
    storage_options : mapping, optional
        Handed to fsspec.
    **options
        As for `xee_tf.Model.predict_image`; ``merge`` is not among them: the store holds predictions alone.

    Returns
    -------
    Location
        The store. Open it with ``xr.open_zarr(path, decode_coords="all", consolidated=False)``.

    Raises
    ------
    DestinationExistsError
        If the store exists and holds something else, or `resume` is False.
    OptionError, GeoreferenceError, ModelError, PredictionError
        As predicting does. What was finished before an error is kept.

    Examples
    --------
    >>> import tempfile, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.arange(16.0).reshape(4, 4))},
    ...     {"y": [105.0, 75.0, 45.0, 15.0], "x": [15.0, 45.0, 75.0, 105.0]}).rio.write_crs("EPSG:32633")
    >>> model = xee_tf.Model.from_function(lambda b: 2 * b[..., 0], input_tile_size=2, output_bands=["twice"])
    >>> store = predict_to_zarr(model, scene, tempfile.mkdtemp() + "/twice.zarr")
    >>> found = xr.open_zarr(store.path, decode_coords="all", consolidated=False)
    >>> float(found.twice[3, 3]), found.rio.crs.to_string()
    (30.0, 'EPSG:32633')
    """
    location = Location.of(store, storage_options)
    predicted = predict_image(model, image, merge=False, **options)
    check_zarr(
        predicted.variables,
        location,
        "Give the output another name in output_bands, or rename what the image has: image.rename(...).",
    )
    notes = _notes(location)
    what = _describe(model, predicted, options)
    if location.exists():
        difference = _difference(location, what) if resume else "resume is False"
        if difference and if_exists == "error":
            raise DestinationExistsError(
                f"{location} exists and cannot be continued: {difference}. Choose another name, or replace "
                "it with if_exists='overwrite'."
            )
        if difference:
            _forget(notes)
            location.remove(recursive=True)
        elif not notes.child(_BEGUN).exists():
            return location  # it is complete
    else:
        _forget(notes)
    if not notes.child(_PREPARED).exists():
        location.require_writable()
        notes.child(_BEGUN).write_bytes(b"")
        _prepare(predicted, location, what)
        notes.child(_PREPARED).write_bytes(b"")
    chunks = _outer_chunks(predicted)
    finished = {file.name for file in notes.child(_CHUNK).siblings()}
    indices = [index for index in np.ndindex(*map(len, chunks)) if _marker(index) not in finished]
    if indices:
        bands = {str(name): band.data for name, band in predicted.data_vars.items()}
        edges = tuple(tuple(np.cumsum([0, *sizes]).tolist()) for sizes in chunks)
        writer = _ChunkWriter(location, tuple(bands), edges)
        run_graph(each_chunk(writer, list(bands.values()), indices, "xee-tf-write"), progress)
    _forget(notes)
    return location


@dataclass(frozen=True)
class _ChunkWriter:
    """Writes one chunk of all bands, and notes that it is there; small and picklable.

    Parameters
    ----------
    location : Location
    bands : tuple of str
    edges : tuple of tuple of int
        Where chunks begin and end, along mapped dimensions, y and x.
    """

    location: Location
    bands: tuple[str, ...]
    edges: tuple[tuple[int, ...], ...]

    def __call__(self, index: tuple[int, ...], blocks: Sequence[npt.NDArray[Any]]) -> None:
        import zarr

        group = zarr.open_group(
            self.location.url, mode="r+", storage_options=self.location.zarr_options, use_consolidated=False
        )
        spans = [slice(*edge[at : at + 2]) for edge, at in zip(self.edges, index, strict=True)]
        for name, block in zip(self.bands, blocks, strict=True):
            inner = [slice(None)] * (block.ndim - len(spans))
            group[name][(*spans[:-2], *inner, *spans[-2:])] = block  # type: ignore[index]
        _notes(self.location).child(_marker(index)).write_bytes(b"")


def _prepare(predicted: xr.Dataset, location: Location, what: Mapping[str, Any]) -> None:
    """The store with its coordinates and what it is, and no pixel in it."""
    predicted.assign_attrs({**predicted.attrs, _WHAT: json.dumps(what)}).to_zarr(
        location.url,
        mode="w",
        compute=False,
        consolidated=False,
        storage_options=location.zarr_options,
    )


def _describe(model: Model, predicted: xr.Dataset, options: Mapping[str, Any]) -> dict[str, Any]:
    """What must be the same for a run to be continued, as JSON has it."""
    georef = read_georef(predicted)
    described = {
        "model": str(model.connector),
        "version": str(model.connector.version()),
        "bands": {
            str(name): [
                str(band.dtype),
                list(band.sizes.items()),
                [list(sizes) for sizes in band.chunks or ()],
            ]
            for name, band in predicted.data_vars.items()
        },
        "crs": georef.crs_text,
        "transform": list(georef.affine)[:6],
        "options": {name: str(value) for name, value in sorted(options.items())},
    }
    found: dict[str, Any] = json.loads(json.dumps(described))
    return found


def _difference(location: Location, what: Mapping[str, Any]) -> str:
    """Why a store is not the one that would be written; empty if it is."""
    import zarr

    try:
        group = zarr.open_group(location.url, mode="r", storage_options=location.zarr_options)
        there = json.loads(str(group.attrs[_WHAT]))
    except (KeyError, ValueError, FileNotFoundError):
        return "it holds no prediction that was begun by this function"
    for name, value in what.items():
        if there.get(name) != value:
            return f"its {name} is {there.get(name)!r}, and would be {value!r}"
    return ""


def _outer_chunks(predicted: xr.Dataset) -> tuple[tuple[int, ...], ...]:
    """Chunks along mapped dimensions, y and x; all bands have those alike."""
    name, band = next(iter(predicted.data_vars.items()))
    inner = max(
        count
        for count in range(band.ndim - 1)
        if band.dims[band.ndim - 2 - count : -2] == inner_dims(str(name), count)
    )
    chunks = band.chunks or ()
    return (*chunks[: band.ndim - 2 - inner], *chunks[-2:])


def _notes(location: Location) -> Location:
    """The folder beside a store in which it is noted what is finished."""
    return Location(f"{location.url.rstrip('/')}.progress", location.storage_options)


def _forget(notes: Location) -> None:
    if notes.exists():
        notes.remove(recursive=True)


def _marker(index: tuple[int, ...]) -> str:
    return _CHUNK + "-".join(map(str, index))
