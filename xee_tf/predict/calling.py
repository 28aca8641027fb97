"""Call a model with tiles or pixels of bands in batches, and check what it returns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, Signature, connected, join_batches
from xee_tf.display import quoted
from xee_tf.errors import OptionError, PredictionError
from xee_tf.geometry import Size
from xee_tf.models import Feed, Item, ModelSpec, Output, plan_feeds, plan_outputs, type_name
from xee_tf.options import integer
from xee_tf.predict.tiles import Tiles, check_tile_size, plan_tiles, tile_items
from xee_tf.sidecars import BandSpec

__all__ = [
    "Caller",
    "TileCaller",
    "choose_batch_size",
    "pinned_spec",
    "pixel_caller",
    "predict_batches",
    "predict_rows",
    "tile_caller",
]

# Limits of a batch if the user does not set its size: larger batches are hardly faster, and the layers of the
# model need more memory.
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192
# Forests that start threads in every call need a quarter of the time with as many pixels (scikit-learn 1.9).
_BATCH_PIXELS = 65536

_PIXEL, _NO_OVERLAP = Size(x=1, y=1), Size(x=0, y=0)


@dataclass(frozen=True)
class Caller:
    """A model with its inputs and outputs. Small and picklable: every process opens the model itself.

    Parameters
    ----------
    connector : Connector
        The model.
    tiles : Tiles
        Tile sizes; tiles of one pixel for a model of single pixels.
    feeds : tuple of Feed
        Inputs of the model and the bands and properties that they are made from.
    outputs : tuple of Output
        Output bands.
    properties : mapping of str to ndarray
        Values that are sent with every tile or pixel.
    batch_size : int
        Number of tiles or pixels per call.
    fixed : bool
        Whether the model requires exactly `batch_size` of them per call.
    """

    connector: Connector
    tiles: Tiles
    feeds: tuple[Feed, ...]
    outputs: tuple[Output, ...]
    properties: Mapping[str, npt.NDArray[Any]]
    batch_size: int
    fixed: bool

    @property
    def bands(self) -> tuple[str, ...]:
        """Names of the bands that the model takes."""
        return tuple(dict.fromkeys(name for feed in self.feeds if feed.tiled for name in feed.members))

    @property
    def items(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Dtype and shape of each input for one tile or pixel."""
        return {feed.input: (feed.dtype, feed.shape) for feed in self.feeds}

    @property
    def returned(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Dtype and shape of each output for one tile or pixel, as far as they are declared."""
        return {out.name: (out.dtype, out.shape) for out in self.outputs}

    def batches(self, count: int) -> list[int]:
        """Return the size of each batch in which `count` tiles or pixels are sent."""
        return _batch_sizes(count, self.batch_size, fixed=self.fixed)


class TileCaller(Caller):
    """Call a model with tiles."""

    @property
    def items(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """See `Caller`."""
        return tile_items(self.feeds, self.tiles.sent)

    @property
    def returned(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """See `Caller`; with the overlap, which some models crop themselves."""
        size = self.tiles.padded or self.tiles.output
        return {out.name: (out.dtype, (*size.shape, *out.shape)) for out in self.outputs}

    def call(self, tiles: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Predict tiles.

        Parameters
        ----------
        tiles : mapping of str to ndarray
            An array ``(n, height, width, *shape)`` for each of `bands`, with the overlap and with masked
            pixels filled. Other bands are ignored.

        Returns
        -------
        dict of str to ndarray
            An array ``(n, h, w, *shape)`` for each output band, where ``(h, w)`` is ``tiles.output`` or, with
            the overlap, ``tiles.padded``. Integer outputs with NaN are returned as float64, because only the
            caller can tell whether the pixels with NaN are masked.

        Raises
        ------
        PredictionError
            If the model fails on the tiles or returns something other than what was declared.
        """
        count = len(tiles[self.bands[0]])
        if not count:
            height, width = self.tiles.output.shape
            return {out.name: np.empty((0, height, width, *out.shape), out.dtype) for out in self.outputs}
        sizes = {size.shape for size in (self.tiles.padded, self.tiles.output) if size is not None}
        parts = []
        values = {name: tiles[name] for name in self.bands}
        for start, sent, response in predict_batches(
            self.connector, self.feeds, values, self.properties, count, self.batch_size, fixed=self.fixed
        ):
            lead = [(sent, *size) for size in sizes]
            part = {out.name: out.take(response, lead, self.connector, keep_nan=True) for out in self.outputs}
            parts.append({name: array[: min(sent, count - start)] for name, array in part.items()})
        try:
            return join_batches(parts)
        except ValueError:
            raise PredictionError(
                "The model returned tiles of different sizes in different batches."
            ) from None


def pinned_spec(spec: ModelSpec) -> ModelSpec:
    """Return the specification of the version of the model that exists now; see `Connector.pinned`."""
    connector = spec.connector.pinned()
    return spec if connector is spec.connector else replace(spec, connector=connector)


def tile_caller(
    spec: ModelSpec,
    signature: Signature,
    bands: Sequence[BandSpec],
    properties: Mapping[str, Any],
    *,
    batch_size: int | None = None,
) -> TileCaller:
    """Check a model against an image and return the object that calls it.

    Parameters
    ----------
    spec : ModelSpec
        The model and its options.
    signature : Signature
        The signature of the model.
    bands : sequence of BandSpec
        Bands of the image with their dtypes.
    properties : mapping of str to object
        Properties of the image. The model's `input_properties` are sent.
    batch_size : int, optional
        Number of tiles per call. Default: as many as fit in about 8 MiB.

    Raises
    ------
    OptionError
        If bands or properties are missing or do not fit the model, or tile sizes contradict the model.
    ModelError
        If the model cannot be opened.

    Examples
    --------
    >>> from xee_tf.models import FunctionConnector
    >>> connector = FunctionConnector.of(lambda pixels: pixels.sum(-1))
    >>> total = ModelSpec(connector, input_tile_size=2, output_bands=["sum"])
    >>> bands = [BandSpec("B4", dtype="uint8"), BandSpec("B3", dtype="uint8")]
    >>> caller = tile_caller(total, connector.signature(), bands, {})
    >>> caller.call({"B4": np.full((1, 2, 2), 3, "uint8"), "B3": np.full((1, 2, 2), 4, "uint8")})
    {'sum': array([[[7., 7.], [7., 7.]]], dtype=float32)}
    """
    feeds, kept = _feeds(spec, signature, bands, properties)
    tiles = plan_tiles(spec, signature, feeds)
    outputs = plan_outputs(spec.output_bands, signature.outputs, "output_bands", spec.connector, lead=3)
    size = sum(feed.itemsize * (tiles.sent.pixels if feed.tiled else 1) for feed in feeds)
    batch, fixed = choose_batch_size(spec.connector, signature, batch_size, size)
    check_tile_size(spec.connector, feeds, tiles, batch if fixed else 1)
    return TileCaller(spec.connector, tiles, feeds, outputs, kept, batch, fixed)


def pixel_caller(
    spec: ModelSpec,
    signature: Signature,
    bands: Sequence[BandSpec],
    properties: Mapping[str, Any],
    *,
    batch_size: int | None = None,
) -> Caller:
    """Check a model of single pixels against an image and return its inputs and outputs.

    Parameters and errors are those of `tile_caller`.
    """
    feeds, kept = _feeds(spec, signature, bands, properties)
    outputs = plan_outputs(spec.output_bands, signature.outputs, "output_bands", spec.connector, lead=1)
    size = sum(feed.itemsize for feed in feeds)
    batch, fixed = choose_batch_size(spec.connector, signature, batch_size, size, _BATCH_PIXELS)
    caller = Caller(spec.connector, Tiles(_PIXEL, _NO_OVERLAP, _PIXEL), feeds, outputs, kept, batch, fixed)
    count = batch if fixed else 1
    if reason := spec.connector.size_problem(caller.items, count):
        sent = "Not even a single pixel" if count == 1 else f"The {count} pixels of a call"
        raise OptionError(
            f"{sent} can{'' if count == 1 else 'not'} be sent to {spec.connector}: {reason}. If the server "
            "accepts larger requests, increase max_payload_bytes."
        )
    return caller


def _feeds(
    spec: ModelSpec, signature: Signature, bands: Sequence[BandSpec], properties: Mapping[str, Any]
) -> tuple[tuple[Feed, ...], dict[str, npt.NDArray[Any]]]:
    """Return the inputs of a model, and the properties of the image that are sent."""
    values = {name: np.asarray(properties[name]) for name in spec.input_properties if name in properties}
    items = {band.name: Item(np.dtype(band.dtype), band.shape, tiled=True) for band in bands}
    for name, value in values.items():
        if name in items:
            raise OptionError(
                f"{name!r} is both a band of the image and one of input_properties. Rename one of them."
            )
        if value.dtype.kind in "US":
            values[name] = value = value.astype(object)
        if value.dtype.kind not in "biufO":
            raise OptionError(
                f"The property {name!r} has dtype {value.dtype}; expected numbers, booleans or strings."
            )
        items[name] = Item(value.dtype, value.shape)
    feeds = plan_feeds(spec, signature, items, table=False)
    if not any(feed.tiled for feed in feeds):
        raise OptionError(
            f"No band of the image is an input of {spec.connector}, only the properties "
            f"{quoted(spec.input_properties)}."
        )
    used = {name for feed in feeds for name in feed.members}
    return feeds, {name: value for name, value in values.items() if name in used}


def choose_batch_size(
    connector: Connector,
    signature: Signature,
    batch_size: int | None,
    instance_bytes: int,
    most: int = _BATCH_ROWS,
) -> tuple[int, bool]:
    """Return the number of instances per call, by default at most `most`, and whether the model requires it.

    Raises
    ------
    OptionError
        If `batch_size` is not a positive whole number or differs from the number that the model requires.
    """
    fixed = signature.fixed_batch
    if batch_size is None:
        automatic = max(1, min(most, _BATCH_BYTES // max(instance_bytes, 1)))
        return (automatic, False) if fixed is None else (fixed, True)
    size = integer(1)(batch_size, "batch_size")
    if fixed not in (None, size):
        raise OptionError(
            f"{connector} requires exactly {fixed} instance{'s' * (fixed != 1)} per call; got "
            f"batch_size={size}."
        )
    return size, fixed is not None


class Rows(Protocol):
    """An array, or what returns one when it is sliced along the first axis."""

    def __getitem__(self, rows: slice, /) -> npt.NDArray[Any]:
        """Return some rows, tiles or pixels."""


def predict_batches(
    connector: Connector,
    feeds: tuple[Feed, ...],
    values: Mapping[str, Rows],
    properties: Mapping[str, npt.NDArray[Any]],
    count: int,
    batch_size: int,
    *,
    fixed: bool,
) -> Iterator[tuple[int, int, dict[str, npt.NDArray[Any]]]]:
    """Send `count` instances in batches and yield (first instance, number of instances, response) of each.

    If `fixed`, the last batch is padded with its last instance.
    """
    connection = connected(connector)
    start = 0
    for sent in _batch_sizes(count, batch_size, fixed=fixed):
        part = {name: array[start : start + sent] for name, array in values.items()}
        missing = start + sent - count
        if missing > 0:
            part = {
                name: np.concatenate([array, array[-1:].repeat(missing, 0)]) for name, array in part.items()
            }
        for name, value in properties.items():
            part[name] = np.broadcast_to(value, (sent, *value.shape))
        batch = {feed.input: feed.tensor(part) for feed in feeds}
        try:
            response = connection.predict(batch)
        except PredictionError as error:
            inputs = "; ".join(
                f"{name}: {type_name(array.dtype)} {array.shape}" for name, array in batch.items()
            )
            if error.instances is None:
                raise PredictionError(
                    f"{connector} failed on its input ({inputs}): {error}",
                    instances=range(start, min(start + sent, count)),
                ) from error
            # The error already names the model and the failed part of the batch.
            failed = range(start + error.instances.start, min(start + error.instances.stop, count))
            raise PredictionError(f"{error} The input was {inputs}.", instances=failed) from error
        yield start, sent, response
        start += sent


def _batch_sizes(count: int, batch_size: int, *, fixed: bool) -> list[int]:
    """Return the size of each batch in which `count` instances are sent."""
    full, rest = divmod(count, batch_size)
    last = [batch_size if fixed else rest] if rest else []
    return [batch_size] * full + last


def predict_rows(
    connector: Connector,
    feeds: tuple[Feed, ...],
    outputs: Sequence[Output],
    values: Mapping[str, Rows],
    properties: Mapping[str, npt.NDArray[Any]],
    count: int,
    batch_size: int,
    *,
    fixed: bool,
    keep_nan: bool = False,
) -> Iterator[tuple[slice, dict[str, npt.NDArray[Any]]]]:
    """Predict `count` rows or pixels in batches and yield the rows of each with an array for each output.

    `keep_nan` is that of `Output.take`.
    """
    for start, sent, response in predict_batches(
        connector, feeds, values, properties, count, batch_size, fixed=fixed
    ):
        stop = min(start + sent, count)
        try:
            taken = {out.name: out.take(response, [(sent,)], connector, keep_nan=keep_nan) for out in outputs}
        except PredictionError as error:
            raise PredictionError(str(error), instances=range(start, stop)) from error
        yield slice(start, stop), {name: array[: stop - start] for name, array in taken.items()}
