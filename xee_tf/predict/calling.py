"""One call of a model: tiles of bands in, tiles of output bands out; in batches, checked on both ways."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import Arrays, Connector, Signature, connected, join_batches
from xee_tf.errors import OptionError, PredictionError
from xee_tf.models import Feed, Item, ModelSpec, Output, plan_feeds, plan_outputs, type_name
from xee_tf.options import integer
from xee_tf.predict.tiles import Tiles, plan_tiles, refuse_too_large
from xee_tf.sidecars import BandSpec

__all__ = ["TileCaller", "batch_of", "predict_batches", "tile_caller"]

# What a batch holds where its size is left to us: beyond it a call is hardly cheaper, and what a model has
# in its layers at one time grows with it.
_BATCH_BYTES = 8 << 20
_BATCH_ROWS = 8192


@dataclass(frozen=True)
class TileCaller:
    """Calls a model with tiles; small and picklable, the model itself is made in each process.

    Parameters
    ----------
    connector : Connector
    tiles : Tiles
        The sizes of tiles.
    feeds : tuple of Feed
        What goes into the inputs of the model.
    outputs : tuple of Output
        The bands that come back.
    properties : mapping
        Values that go with each tile.
    batch_size : int
        Tiles in a call.
    fixed : bool
        The model takes no other number of them.
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
        """The bands that the model sees."""
        return tuple(dict.fromkeys(name for feed in self.feeds if feed.tiled for name in feed.members))

    def call(self, tiles: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Predict.

        Parameters
        ----------
        tiles : mapping from str to ndarray
            For each of `bands` an array ``(n, height, width, *shape)`` of tiles as they are sent, masked
            pixels filled; other bands are ignored.

        Returns
        -------
        dict from str to ndarray
            For each output band ``(n, h, w, *shape)``, where ``(h, w)`` is ``tiles.output`` or, with the
            overlap, ``tiles.padded``. Integers among which are NaN come as float64: whether they count
            only those know who made the tiles.

        Raises
        ------
        PredictionError
            If the model refuses the tiles, or answers with something other than declared.
        """
        count = len(tiles[self.bands[0]])
        if not count:
            height, width = self.tiles.output.shape
            return {out.name: np.empty((0, height, width, *out.shape), out.dtype) for out in self.outputs}
        sizes = {size.shape for size in (self.tiles.padded, self.tiles.output) if size is not None}
        parts = []
        values = {name: tiles[name] for name in self.bands}
        for start, sent, answer in predict_batches(
            self.connector, self.feeds, values, self.properties, count, self.batch_size, fixed=self.fixed
        ):
            lead = [(sent, *size) for size in sizes]
            part = {out.name: out.take(answer, lead, self.connector, keep_nan=True) for out in self.outputs}
            parts.append({name: found[: min(sent, count - start)] for name, found in part.items()})
        try:
            return join_batches(parts)
        except ValueError:
            raise PredictionError(
                "The model answered with tiles of one size, and with another in the next batch."
            ) from None


def tile_caller(
    spec: ModelSpec,
    signature: Signature,
    bands: Sequence[BandSpec],
    properties: Mapping[str, Any],
    *,
    batch_size: int | None = None,
) -> TileCaller:
    """Check a model against an image, and make what calls it.

    Parameters
    ----------
    spec : ModelSpec
    signature : Signature
        That of the model.
    bands : sequence of BandSpec
        The bands of the image, with their dtypes.
    properties : mapping
        Those of the image; of these, `input_properties` are sent.
    batch_size : int, optional
        Tiles in a call. Default: about 8 MiB of them.

    Raises
    ------
    OptionError
        If bands or properties are missing or do not fit, or sizes contradict the model.
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
    values = {name: np.asarray(properties[name]) for name in spec.input_properties if name in properties}
    items = {band.name: Item(np.dtype(band.dtype), band.shape, tiled=True) for band in bands}
    for name, value in values.items():
        if name in items:
            raise OptionError(
                f"{name!r} is a band of the image and also one of input_properties: rename one."
            )
        if value.dtype.kind in "US":
            values[name] = value = value.astype(object)
        if value.dtype.kind not in "biufO":
            raise OptionError(
                f"The property {name!r} is {value.dtype}: a model takes numbers, booleans and strings."
            )
        items[name] = Item(value.dtype, value.shape)
    feeds = plan_feeds(spec, signature, items, table=False)
    if not any(feed.tiled for feed in feeds):
        raise OptionError(
            f"No band of the image goes to {spec.connector}, only {list(spec.input_properties)}."
        )
    tiles = plan_tiles(spec, signature, feeds)
    outputs = plan_outputs(spec.output_bands, signature.outputs, "output_bands", spec.connector, lead=3)
    size = sum(feed.itemsize * (tiles.sent.pixels if feed.tiled else 1) for feed in feeds)
    batch, fixed = batch_of(spec.connector, signature, batch_size, size)
    refuse_too_large(spec.connector, feeds, tiles, batch if fixed else 1)
    used = {name for feed in feeds for name in feed.members}
    kept = {name: value for name, value in values.items() if name in used}
    return TileCaller(spec.connector, tiles, feeds, outputs, kept, batch, fixed)


def batch_of(
    connector: Connector, signature: Signature, batch_size: int | None, instance_bytes: int
) -> tuple[int, bool]:
    """Instances in a call, and whether the model takes no other number of them.

    Raises
    ------
    OptionError
        If it is no positive whole number, or another than the model takes.
    """
    fixed = signature.fixed_batch
    if batch_size is None:
        automatic = max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(instance_bytes, 1)))
        return (automatic, False) if fixed is None else (fixed, True)
    size = integer(1)(batch_size, "batch_size")
    if fixed not in (None, size):
        raise OptionError(
            f"batch_size={batch_size}, and {connector} takes {fixed} at a time, no other number."
        )
    return size, fixed is not None


def predict_batches(
    connector: Connector,
    feeds: tuple[Feed, ...],
    values: Arrays,
    properties: Mapping[str, npt.NDArray[Any]],
    count: int,
    batch_size: int,
    *,
    fixed: bool,
) -> Iterator[tuple[int, int, dict[str, npt.NDArray[Any]]]]:
    """Send `count` instances in batches; gives (first instance, instances sent, answer) of each.

    Where `fixed`, the last batch is filled up with its last instance.
    """
    connection = connected(connector)
    for start in range(0, count, batch_size):
        part = {name: array[start : start + batch_size] for name, array in values.items()}
        sent = min(batch_size, count - start)
        if fixed and sent < batch_size:
            fill = batch_size - sent
            part = {name: np.concatenate([array, array[-1:].repeat(fill, 0)]) for name, array in part.items()}
            sent = batch_size
        for name, value in properties.items():
            part[name] = np.broadcast_to(value, (sent, *value.shape))
        batch = {feed.input: feed.tensor(part) for feed in feeds}
        try:
            answer = connection.predict(batch)
        except PredictionError as error:
            said = "; ".join(
                f"{name}: {type_name(array.dtype)} {array.shape}" for name, array in batch.items()
            )
            if error.instances is None:
                raise PredictionError(
                    f"{connector} refused what it was sent ({said}). It said: {error}",
                    instances=range(start, min(start + sent, count)),
                ) from error
            # It says itself who refused, and which part of the batch.
            about = range(start + error.instances.start, min(start + error.instances.stop, count))
            raise PredictionError(f"{error} It was sent {said}.", instances=about) from error
        yield start, sent, answer
