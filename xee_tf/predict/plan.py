"""The plan of a prediction: tiles, requests, bytes and memory, without reading pixels or sending a tile."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from dask.system import CPU_COUNT
from dask.utils import format_bytes

from xee_tf.blocks import BlockLayout, chunk_bytes, largest_window, main_edges, pixel_bytes, strip_bytes
from xee_tf.connector import Connector, TensorInfo
from xee_tf.display import (
    Facts,
    GridPicture,
    SourcePicture,
    Summarized,
    Summary,
    abbreviated,
    by,
    counted,
    plot_grid,
)
from xee_tf.errors import OptionError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import grid_picture, grid_rows
from xee_tf.graph import memory_warning, peak_memory
from xee_tf.models import FunctionConnector, ModelSpec, ModelUnit, type_name
from xee_tf.options import number
from xee_tf.predict.block import BlockPredictor
from xee_tf.predict.image import Prediction, predict_image
from xee_tf.predict.options import PredictOptions
from xee_tf.predict.pixels import PixelPredictor
from xee_tf.remote import RemoteConnector
from xee_tf.sidecars import BandSpec

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["PredictPlan", "plan_prediction"]


@dataclass(frozen=True, repr=False)
class PredictPlan(Summarized):
    """What a prediction would send to its model and return, and the memory and tasks that it needs.

    Parameters
    ----------
    model : str
        The model.
    unit : {"tile", "pixel"}
        What the model takes, as in `Model`.
    grid : PatchGrid
        The tiles, or single pixels, over the raster in the projection of the model. The margin of a tile is
        the overlap.
    steps : mapping of str to int
        Dimensions of the image of which each step is predicted separately, with their lengths.
    inputs : mapping of str to TensorInfo
        The tensors that the model gets; None is the number of tiles or pixels.
    bands : tuple of BandSpec
        The bands of the result, with their dtypes and their dimensions other than y and x.
    shape : Size
        Size of the result in pixels.
    chunks : Size
        Size of its chunks in pixels.
    result_bytes : int
        Size of the result in bytes, uncompressed. `xee_tf.predict_to_cog` with ``if_exists="resume"`` needs
        up to this much disk, in addition to the file, until the file is complete.
    batch_size : int
        Maximum number of tiles or pixels in a batch, which is one call of the model.
    batches : int
        Number of batches; with ``augment``, eight for each.
    sent, received : int
        Bytes of the tiles for the model and of its predictions; of a hosted model those of the bodies of all
        requests and, about, of the responses, without retries.
    requests : int, optional
        Number of requests to a hosted model, without retries. None for other models.
    request_bytes : int, optional
        Size of the largest request in bytes.
    skips_masked : bool
        Whether masked pixels, or tiles in which all pixels are masked, are not sent. Numbers of batches,
        requests and bytes are then upper bounds, because masks are not known before pixels are read.
    sizes_vary : bool
        Whether numbers are sent as text. Numbers of requests and bytes are then upper bounds.
    tasks : int
        Number of Dask tasks of the lazy result, with those that load its source.
    task_memory : int
        Memory of the largest block in bytes: chunks, bands, masks, one batch, and results. The model's
        weights and layers are not included.
    block_layout : BlockLayout, optional
        The blocks; None if one of the `steps` is empty.
    price_per_million_requests : float, optional
        Price of a million requests in any currency, for a server that bills by request.
    receiver : {"function", "model", "server"}
        What the tiles or pixels are given or sent to.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> scene = xr.Dataset({"B4": (("y", "x"), np.zeros((600, 500), "uint8"))}, attrs={"crs": "EPSG:32633"},
    ...                    coords={"y": 5e6 - 30 * np.arange(600.0), "x": 7e5 + 30 * np.arange(500.0)})
    >>> model = xee_tf.Model.from_function(len, input_tile_size=128, output_bands=["forest"])
    >>> plan = model.plan(scene)
    >>> plan.grid.rows, plan.grid.patches_per_row, plan.tiles, plan.batches, plan.exact
    (5, 4, 20, 5, True)
    """

    model: str
    unit: ModelUnit
    grid: PatchGrid
    steps: Mapping[str, int]
    inputs: Mapping[str, TensorInfo]
    bands: tuple[BandSpec, ...]
    shape: Size
    chunks: Size
    result_bytes: int
    batch_size: int
    batches: int
    sent: int
    received: int
    requests: int | None
    request_bytes: int | None
    skips_masked: bool
    sizes_vary: bool
    tasks: int
    task_memory: int
    block_layout: BlockLayout | None = None
    price_per_million_requests: float | None = None
    receiver: Literal["function", "model", "server"] = "model"

    @property
    def tiles(self) -> int:
        """Number of tiles, or of pixels, over all steps; masked ones are included."""
        return len(self.grid) * math.prod(self.steps.values())

    @property
    def tile(self) -> Size:
        """Size of the tiles that are sent, with their overlap, in pixels."""
        return self.grid.stored

    @property
    def exact(self) -> bool:
        """Whether the numbers of batches, requests and bytes sent are exact, and not upper bounds."""
        return not self.skips_masked and not self.sizes_vary

    @property
    def cost(self) -> float | None:
        """The price of all requests; None without a price, or if the model is not hosted."""
        if self.price_per_million_requests is None or self.requests is None:
            return None
        return self.requests * self.price_per_million_requests / 1e6

    @property
    def blocks(self) -> tuple[int, int]:
        """Number of rows and columns of blocks; a block is a rectangle of whole chunks and one task."""
        return (0, 0) if self.block_layout is None else (len(self.block_layout.y), len(self.block_layout.x))

    @property
    def source_chunks(self) -> int:
        """Number of chunks to load, over all bands and steps; each is loaded once."""
        layout = self.block_layout
        return 0 if layout is None else layout.chunk_count() * math.prod(self.steps.values())

    @cached_property
    def peak_memory(self) -> int:
        """Estimated peak memory of this process in bytes, with Dask's default of one thread per core.

        The sum of its current memory; one block per thread, the chunks of one more block, and the strips that
        blocks need of each other, with a quarter more for the allocator; and Dask's memory per task. Neither
        the model's weights and layers are included, nor the result, which `xee_tf.predict_to_zarr` and
        `xee_tf.predict_to_cog` write chunk by chunk. Measured peaks of writing were 2 % above to 26 % below.
        """
        data = CPU_COUNT * self.task_memory
        if self.block_layout is not None:
            data += chunk_bytes(self.block_layout) + strip_bytes(self.block_layout)
        return peak_memory(data, self.tasks)

    @property
    def warnings(self) -> tuple[str, ...]:
        """A warning if the memory may not suffice."""
        found = memory_warning("prediction", self.task_memory, self.peak_memory, "reduce batch_size")
        return () if found is None else (found,)

    def _summary(self) -> Summary:
        at_most = "at most " if self.skips_masked else ""
        size = "" if self.exact else "at most "
        blocks = f"{counted(self.blocks[0], 'row')} × {counted(self.blocks[1], 'column')} of blocks"
        whole = format_bytes(self.peak_memory)
        tensors = [f"{name}: {info}" for name, info in self.inputs.items()]
        steps = [f"{length:,} of {dim}" for dim, length in self.steps.items()]
        many = f"{self.unit}s"
        sent = "sent" if self.receiver == "server" else f"given to the {self.receiver}"
        returned = f"{format_bytes(self.received)} {'received' if self.receiver == 'server' else 'returned'}"
        grid = grid_rows(self.grid, many, f"{sent} with overlap")
        if self.unit == "pixel":
            grid = [(many, f"{len(self.grid):,}"), grid[1]]  # they fit exactly
        rows = [
            *grid,
            *([("steps", f"{', '.join(steps)}; each is predicted separately")] if steps else []),
            ("inputs", abbreviated(tensors)),
            ("batches", f"{at_most}{self.batches:,} of up to {counted(self.batch_size, self.unit)}"),
            *self._request_rows(size),
            ("bytes", f"{size}{format_bytes(self.sent)} {sent}, about {returned}"),
            ("outputs", abbreviated([_band_text(band) for band in self.bands])),
            (
                "result",
                f"{by(*self.shape.xy)} px in chunks of {by(*self.chunks.xy)}, "
                f"{format_bytes(self.result_bytes)} uncompressed",
            ),
            ("tasks", f"{self.tasks:,} for {counted(self.source_chunks, 'source chunk')}, in {blocks}"),
            (
                "memory",
                f"{format_bytes(self.task_memory)} per task, {whole} for the whole process; without the "
                "model itself, and without the result",
            ),
        ]
        if self.skips_masked:
            what = "tiles in which all pixels are masked" if self.unit == "tile" else "masked pixels"
            rows.append(("skipped", f"{what}; masks are not known before pixels are read"))
        return Summary("PredictPlan", self.model, rows, self.warnings, picture=self._picture())

    def _picture(self) -> GridPicture:
        layout = self.block_layout
        edges = ((), ()) if layout is None else (layout.x.edges, layout.y.edges)
        return grid_picture(self.grid, *edges, names=(self.unit, f"{self.unit}s"))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the raster, its chunks and the tiles, with one tile and its overlap enlarged.

        No pixel is read, and no tile is sent. The time does not depend on the number of tiles: lines that
        would be too close are left out.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            The axes to draw to. Default: those of a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            The axes, in pixels of the raster in the projection of the model, with the first row at the top.

        Raises
        ------
        MissingExtraError
            If Matplotlib is not installed (extra ``plot``).

        Examples
        --------
        >>> import numpy as np, xarray as xr, xee_tf
        >>> scene = xr.Dataset({"B4": (("y", "x"), np.zeros((60, 50), "uint8"))}, attrs={"crs": "EPSG:32633"},
        ...                    coords={"y": 5e6 - 30 * np.arange(60.0), "x": 7e5 + 30 * np.arange(50.0)})
        >>> model = xee_tf.Model.from_function(len, input_tile_size=16, input_overlap_size=4,
        ...                                    output_bands=["forest"])
        >>> model.plan(scene).plot().get_title()
        '16 tiles of 16 × 16 px'
        """
        layout, grid = self.block_layout, self.grid
        rows, columns = (
            ((0, grid.shape.y), (0, grid.shape.x)) if layout is None else main_edges(layout.planes)
        )
        title = counted(len(grid), self.unit) + (
            f" of {by(*grid.patch.xy)} px" if self.unit == "tile" else ""
        )
        source = SourcePicture(grid.origin.xy, columns, rows)
        return plot_grid(self._picture(), source, title, ax)

    def _request_rows(self, size: str) -> Facts:
        if self.requests is None or self.request_bytes is None:
            return []
        largest = f"the largest with {'up to ' if size else ''}{format_bytes(self.request_bytes)}"
        rows = [("requests", f"{size}{self.requests:,}, {largest}")]
        if self.cost is not None:
            price = f"{_amount(self.price_per_million_requests)} per million requests"
            rows.append(("cost", f"{size}{_amount(self.cost)} at {price}"))
        if self.sizes_vary:
            rows.append(("", "numbers are sent as text: sizes are those of the longest numbers"))
        return rows


def plan_prediction(
    spec: ModelSpec,
    image: xr.Dataset | xr.DataArray,
    options: PredictOptions,
    *,
    price_per_million_requests: float | None = None,
) -> PredictPlan:
    """Plan the prediction of a raster; see `xee_tf.Model.plan`."""
    price = price_per_million_requests
    if price is not None:
        price = number(0)(price, "price_per_million_requests")
        if not isinstance(spec.connector, RemoteConnector):
            raise OptionError(
                f"price_per_million_requests is the price of a model on a server; got {spec.connector}, to "
                "which no requests are sent. Omit it."
            )
    prediction = predict_image(spec, image, options, merge=False)
    work, caller = prediction.work, prediction.caller
    predicted = prediction.dataset[[output.name for output in prediction.outputs]]
    computed = (work.predictor or prediction).outputs  # maps of classes can be masked without their inputs
    first = predicted[prediction.outputs[0].name].variable
    y_chunks, x_chunks = _chunk_lengths(first)
    batches = _count_batches(prediction)
    traffic = _traffic(prediction, batches)
    return PredictPlan(
        model=str(caller.connector),
        unit=spec.unit,
        grid=work.grid,
        steps=work.steps,
        inputs={name: TensorInfo(dtype, (None, *shape)) for name, (dtype, shape) in caller.items.items()},
        bands=tuple(
            BandSpec(
                output.name,
                (*work.steps, *output.dims),
                (*work.steps.values(), *output.shape),
                dtype=output.dtype.str,
                nodata=() if output.fill is None else (output.fill,),
            )
            for output in prediction.outputs
        ),
        shape=Size(x=first.shape[-1], y=first.shape[-2]),
        chunks=Size(x=max(x_chunks), y=max(y_chunks)),
        result_bytes=sum(predicted[output.name].nbytes for output in prediction.outputs),
        batch_size=caller.batch_size,
        batches=sum(batches.values()),
        sent=traffic.sent,
        received=traffic.received,
        requests=traffic.requests,
        request_bytes=traffic.largest,
        skips_masked=options.skip_masked and any(output.fill is not None for output in computed),
        sizes_vary=isinstance(caller.connector, RemoteConnector) and caller.connector.payload.sizes_vary,
        tasks=len(predicted.__dask_graph__() or ()),
        task_memory=_block_memory(prediction),
        block_layout=work.layout,
        price_per_million_requests=price,
        receiver=_receiver(caller.connector),
    )


def _receiver(connector: Connector) -> Literal["function", "model", "server"]:
    if isinstance(connector, RemoteConnector):
        return "server"
    return "function" if isinstance(connector, FunctionConnector) else "model"


def _count_batches(prediction: Prediction) -> Counter[int]:
    """Count the batches of a prediction by their numbers of tiles, if no tile is skipped."""
    work, found = prediction.work, Counter[int]()
    if work.predictor is None or work.layout is None:
        return found
    heights, widths = (
        Counter(len(axis.owned(block)) for block in range(len(axis)))
        for axis in (work.layout.y, work.layout.x)
    )
    steps = math.prod(work.steps.values())
    for height, rows in heights.items():
        for width, columns in widths.items():
            if height and width:
                for size, count in work.predictor.batches(height, width).items():
                    found[size] += count * rows * columns * steps
    return found


@dataclass(frozen=True)
class _Traffic:
    """What is sent to a model and received from it, in bytes; requests are those of a hosted model."""

    sent: int
    received: int
    requests: int | None = None
    largest: int | None = None


def _traffic(prediction: Prediction, batches: Mapping[int, int]) -> _Traffic:
    caller = prediction.caller
    items, returned = caller.items, caller.returned
    instances = sum(size * count for size, count in batches.items())
    if not isinstance(caller.connector, RemoteConnector):
        return _Traffic(instances * _items_bytes(items), instances * _items_bytes(returned))
    connector, payload = caller.connector, caller.connector.payload
    sent = requests = largest = 0
    for size, count in batches.items():
        batch = payload.largest_batch(items, size)
        for feed in caller.feeds:
            if not feed.tiled:
                values = {
                    name: np.broadcast_to(caller.properties[name], (size, *caller.properties[name].shape))
                    for name in feed.members
                }
                batch[feed.input] = feed.tensor(values)
        lengths = _request_sizes(connector, batch, size, whole=caller.fixed)
        sent += count * sum(lengths)
        requests += count * len(lengths)
        largest = max(largest, *lengths)
    # The length of a response grows with that of each tile.
    one, two = (
        len(payload.answers.encode(payload.answers.largest_batch(returned, tiles))) for tiles in (1, 2)
    )
    return _Traffic(sent, requests * one + (instances - requests) * (two - one), requests, largest)


def _request_sizes(
    connector: RemoteConnector, batch: dict[str, Any], count: int, *, whole: bool
) -> list[int]:
    """Return the sizes of the requests for a batch."""
    try:
        return [len(connector.wrap(request.body)) for request in connector.requests(batch, whole=whole)]
    except OptionError:
        if not connector.payload.sizes_vary:
            raise
        # A tile of the longest numbers is too large, but those of the image may fit, one in a request.
        return [connector.flow.request_bytes] * (1 if whole else count)


def _items_bytes(items: Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]) -> int:
    return sum(dtype.itemsize * math.prod(shape) for dtype, shape in items.values())


def _block_memory(prediction: Prediction) -> int:
    """Return the memory of the largest block in bytes."""
    predictor, layout = prediction.work.predictor, prediction.work.layout
    if predictor is None or layout is None:
        return 0
    maskable = any(output.fill is not None for output in predictor.outputs)
    blocks = list(layout.blocks())
    windows = [predictor.window(layout, block) for block in blocks]
    # Bands that are whole chunks are not copied, and neither are results that are whole chunks.
    one_chunk = layout.chunk_count() == len(layout.planes) * len(blocks)
    bands = 0 if one_chunk and not maskable and prediction.work.grid.margin == Size(x=0, y=0) else 1
    first = prediction.dataset[prediction.outputs[0].name].variable
    aligned = len(blocks) == math.prod(len(chunks) for chunks in _chunk_lengths(first))
    results = 1 if aligned and prediction.options.blend == "crop" else 2
    masks = sum(rule.depth for rule in predictor.rules) + 2 if maskable else 0
    if maskable and isinstance(predictor, PixelPredictor):
        masks += np.dtype(np.intp).itemsize  # the places of pixels
    pixel = sum(output.dtype.itemsize * math.prod(output.shape) for output in predictor.outputs)
    return (
        chunk_bytes(layout)
        + largest_window(layout).pixels * (bands * pixel_bytes(predictor.rules) + masks)
        + _call_memory(predictor, layout, maskable)
        + results * max(window.size.pixels for window in windows) * pixel
    )


def _call_memory(predictor: BlockPredictor | PixelPredictor, layout: BlockLayout, maskable: bool) -> int:
    """Return the memory of the tiles or pixels that are predicted together, and of their predictions."""
    rows, columns = (
        max(len(axis.owned(block)) for block in range(len(axis))) for axis in (layout.y, layout.x)
    )
    caller = predictor.caller
    batch = max(predictor.batches(rows, columns))
    items, returned, own = (
        _items_bytes(caller.items),
        _items_bytes(caller.returned),
        pixel_bytes(predictor.rules) * caller.tiles.sent.pixels,
    )
    if isinstance(predictor, PixelPredictor):
        return batch * (own + items + returned)
    together = predictor.rows_together(rows, columns)
    tiles = together * columns
    copied = own if maskable or together > 1 else 0
    return tiles * copied + batch * items + (2 if tiles > batch else 1) * tiles * returned


def _chunk_lengths(variable: xr.Variable) -> list[tuple[int, ...]]:
    """Return the lengths of the chunks of a lazy variable along y and x."""
    chunks: Mapping[Hashable, tuple[int, ...]] = variable.chunksizes
    return [chunks[dim] for dim in variable.dims[-2:]]


def _amount(value: float | None) -> str:
    """Format an amount of money with two decimals, or with two digits if it is less than a hundredth.

    Examples
    --------
    >>> _amount(1_500_000), _amount(12345.678), _amount(0.5), _amount(0.000755)
    ('1,500,000', '12,345.68', '0.50', '0.00076')
    """
    value = value or 0.0
    if 0 < value < 0.01:
        return np.format_float_positional(value, 2, fractional=False, trim="-")
    return f"{value:,.2f}".removesuffix(".00")


def _band_text(band: BandSpec) -> str:
    text = f"{band.name}: {type_name(np.dtype(band.dtype))}"
    lengths = [f"{dim} {length:,}" for dim, length in zip(band.dims, band.shape, strict=True)]
    return f"{text} ({', '.join(lengths)})" if lengths else text
