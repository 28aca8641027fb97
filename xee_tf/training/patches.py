"""Read patches straight from a lazy raster, as numpy arrays."""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.utils import format_bytes, parse_bytes
from numpy.typing import NDArray

from xee_tf.blocks import Block, BlockLayout, lay_out_blocks, pixel_bytes
from xee_tf.display import Summary, abbreviated, counted, quoted
from xee_tf.errors import OptionError, excerpt, warn
from xee_tf.export import ExportJob, ExportOptions, ExportSource, Image, image_job
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import grid_picture, grid_rows, selected_rows, whole_image
from xee_tf.options import READ_SPELLING, check_flags, read_names, spelled
from xee_tf.records import FeatureTypes
from xee_tf.sampling import PatchSelection, on_grid, require_margin
from xee_tf.sidecars import BandSpec
from xee_tf.training.block_memory import BlockMemory, BlockSource, Convert, cut_patches
from xee_tf.training.checks import check_count, check_seed, generator
from xee_tf.training.order import BlockSizes, PatchOrder, in_given_order, shuffled, sweeps_of
from xee_tf.training.turns import Turn, Turns

__all__ = ["PatchReader", "Patches", "Stored", "open_patches", "plan_patches", "reader_of", "specs_of"]

_WINDOWS = 5  # that memory holds: the last, the current and the next one, which is also held as chunks
_KEPT = 3  # of them, as blocks


@dataclass(frozen=True)
class Stored:
    """An array of pixels that is kept of each block.

    Parameters
    ----------
    shape : tuple of int
        The lengths of its axes after step, y and x.
    depth : int
        Number of steps.
    dtype : numpy.dtype
        The dtype.
    """

    shape: tuple[int, ...]
    depth: int
    dtype: np.dtype[Any]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of one pixel."""
        return int(np.prod(self.shape, dtype=int)) * self.depth * self.dtype.itemsize


class Patches:
    """The patches of a raster; see `xee_tf.open_patches`, which creates it.

    Parameters
    ----------
    job : ExportJob
        The plan and the arrays of the raster.
    numbers : ndarray
        The numbers of the patches in the grid.
    memory : int
        Maximum size of the pixels in memory in bytes.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.arange(64.0).reshape(8, 8))}, attrs={"crs": "EPSG:32633"},
    ...                 coords={"y": 5e6 - 30 * np.arange(8.0), "x": 7e5 + 30 * np.arange(8.0)})
    >>> patches = xee_tf.open_patches(ds, patch_dimensions=4)
    >>> len(patches), patches[3]["B4"][0].tolist()
    (4, [36.0, 37.0, 38.0, 39.0])
    """

    def __init__(self, job: Any, numbers: NDArray[np.int64], memory: int) -> None:
        self._job: ExportJob = job  # which is not public
        self._memory = memory
        self.numbers = numbers

    @property
    def grid(self) -> PatchGrid:
        """The grid of patches over the raster."""
        return self._job.plan.grid

    @property
    def bands(self) -> tuple[str, ...]:
        """The names of the bands."""
        return tuple(band.name for band in specs_of(self))

    @property
    def default_values(self) -> dict[str, float | None]:
        """The value of the masked pixels of each band; None if it is NaN only."""
        return {band.name: band.default for band in specs_of(self)}

    @cached_property
    def _reader(self) -> PatchReader:
        stored = [Stored((), rule.depth, np.dtype(rule.dtype)) for rule in self._job.plan.band_plan.rules]
        return reader_of(self, stored, lambda bands, _: bands)

    @property
    def selection(self) -> PatchSelection:
        """The patches as a selection, without their order."""
        return PatchSelection(self.grid, self.numbers)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the pixels in memory."""
        return {name: value for name, value in vars(self).items() if name != "_reader"}

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int | slice | Sequence[int]) -> dict[str, NDArray[Any]]:
        """Return the bands of a patch, or those of several patches with an axis for the patch."""
        if isinstance(index, slice) or np.ndim(index):
            places = np.arange(len(self))[index]
            if places.ndim > 1:
                raise IndexError(f"Patches have one axis; got an index with {places.ndim}.")
            return self._as_dict(places)
        place = range(len(self))[operator.index(index)]  # type: ignore[arg-type]  # raises an IndexError
        return {name: values[0] for name, values in self._as_dict(np.array([place])).items()}

    def __iter__(self) -> Iterator[dict[str, NDArray[Any]]]:
        for batch in self.batches(1):
            yield {name: values[0] for name, values in batch.items()}

    def batches(
        self,
        batch_size: int = 32,
        *,
        shuffle: bool = False,
        seed: int | None = None,
        drop_remainder: bool = False,
    ) -> Iterator[dict[str, NDArray[Any]]]:
        """Iterate over all patches in batches; the next chunks are loaded in a background thread.

        Parameters
        ----------
        batch_size : int, default 32
            The number of patches in a batch.
        shuffle : bool, default False
            Whether the order is random; see `xee_tf.PatchSequence`.
        seed : int, optional
            The random seed. The same seed gives the same order: pass another one in each epoch.
        drop_remainder : bool, default False
            Whether to omit the last batch if it is smaller than `batch_size`.

        Returns
        -------
        iterator of dict of str to ndarray
            Arrays ``(batch, height, width)`` or ``(batch, steps, height, width)``.

        Examples
        --------
        >>> import numpy as np, xarray as xr, xee_tf
        >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((8, 8), "float32"))}, attrs={"crs": "EPSG:32633"},
        ...                 coords={"y": 5e6 - 30 * np.arange(8.0), "x": 7e5 + 30 * np.arange(8.0)})
        >>> patches = xee_tf.open_patches(ds, patch_dimensions=4, kernel_size=2)
        >>> [batch["B4"].shape for batch in patches.batches(3, shuffle=True)]
        [(3, 6, 6), (1, 6, 6)]
        """
        size = check_count(batch_size, "batch_size")
        check_flags(shuffle=shuffle, drop_remainder=drop_remainder)
        if seed is not None:
            seed = check_seed(seed, "seed")
        order = self._reader.order(shuffle, seed, 0)
        count = len(self) // size * size if drop_remainder else len(self)
        return self._batches(order, size, count)

    def _batches(self, order: PatchOrder, size: int, count: int) -> Iterator[dict[str, NDArray[Any]]]:
        for begin in range(0, count, size):
            end = min(begin + size, count)
            with self._reader.turn(order, begin, end) as turn:
                self._reader.load(turn, order, begin, end)
                batch = self._as_dict(order.positions[begin:end])
            yield batch

    def _as_dict(self, positions: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        trims = [False] * len(self.bands)
        arrays = self._reader.read(positions, trims)
        return {
            band.name: array if band.dims else array[:, 0]
            for band, array in zip(specs_of(self), arrays, strict=True)
        }

    def _summary(self) -> Summary:
        rows = [
            *grid_rows(self.grid),
            *selected_rows(len(self) if len(self) < len(self.grid) else None, 0, self.grid),
            ("bands", abbreviated(self.bands)),
        ]
        return Summary("Patches", "", rows, picture=grid_picture(self.grid))

    def _repr_html_(self) -> str:
        return self._summary().html()

    def __repr__(self) -> str:
        stored, patch = self.grid.stored, self.grid.patch
        margins = "" if stored == patch else f" ({stored.x} x {stored.y} with margins)"
        return (
            f"<xee_tf.Patches: {counted(len(self), 'patch', 'patches')} of {patch.x} x {patch.y} "
            f"pixels{margins}, bands {quoted(self.bands)}>"
        )


@spelled(READ_SPELLING)
def open_patches(
    image: Image,
    *,
    patch_dimensions: int | Sequence[int] = (256, 256),
    kernel_size: int | Sequence[int] = 1,
    bands: Sequence[str] | None = None,
    default_value: float = 0,
    tensor_depths: Mapping[str, int] | Sequence[int] | None = None,
    feature_types: FeatureTypes = "float",
    edge: Literal["drop", "pad"] = "drop",
    mask: str | xr.DataArray | None = None,
    region: Any = None,
    region_crs: Any = None,
    crs: Any = None,
    transform: Any = None,
    patches: PatchSelection | Sequence[int] | None = None,
    memory: int | str = "1 GiB",
) -> Patches:
    """Read patches straight from a lazy raster, without files: what an export would write, as numpy arrays.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, as for `xee_tf.export_image`.
    patch_dimensions : int or (int, int), default (256, 256)
        Width and height of a patch in pixels, without its margin.
    kernel_size : int or (int, int), default 1
        Width and height of the kernel in pixels: a patch includes a margin of half the kernel on every side.
    bands : sequence of str, optional
        The bands to read. Default: all.
    default_value : float, default 0
        Value for pixels that are masked, by NaN, nodata or `mask`, or outside the raster.
    tensor_depths : mapping of str to int, or sequence of int, optional
        Depth of each array band; see `xee_tf.export_image`.
    feature_types : {"float", "band"}, default "float"
        "float" reads all bands as float32, "band" integer bands in their own dtype and the others as float32.
    edge : {"drop", "pad"}, default "drop"
        Whether incomplete patches at the right and bottom edges are dropped, or padded with `default_value`.
    mask : DataArray or str, optional
        Boolean array, true where pixels are masked in all bands; or the name of such a variable of `image`.
    region : tuple or GeoJSON-like, optional
        Part of the raster; see `xee_tf.export_image`.
    region_crs : CRS or str or int, optional
        CRS of `region`.
    crs : CRS or str or int, optional
        CRS of the image, if it has none or a wrong one.
    transform : Affine or sequence of float, optional
        Affine transform of the image, if it has none or a wrong one.
    patches : PatchSelection or sequence of int, optional
        The patches to read, for example one side of `xee_tf.split_patches`; or the numbers of patches, in
        this order: in row-major order from the top left of the raster, as in `xee_tf.PatchGrid`. Default:
        all.
    memory : int or str, default "1 GiB"
        Maximum size of the pixels that are kept in memory, in bytes or as text. Shuffled patches come from a
        fifth of it at a time.

    Returns
    -------
    Patches
        A sequence: its length is the number of patches, and ``patches[i]`` a dict of the bands of patch i,
        with its margin, as arrays ``(height, width)``, or ``(steps, height, width)`` for array bands. A slice
        or list of indices returns them with another axis before these. ``patches.batches(32)`` iterates over
        all of them; ``patches.grid`` has their windows and transforms.

    Raises
    ------
    OptionError
        If an option is invalid, or `memory` is too small for the chunks of the raster.
    GeoreferenceError
        If the image has no usable georeference.
    GridMismatchError
        If `patches` selects patches of another grid.

    See Also
    --------
    xee_tf.PatchSequence : Patches as batches for Keras.

    Notes
    -----
    Chunks are loaded by Dask with its current scheduler, also on a cluster, and several patches are cut from
    a chunk while it is in memory. In a pass over all patches in order, each chunk is loaded once if a row of
    chunks takes at most a fifth of `memory`. A ``for`` loop or ``batches`` are therefore faster than indices
    in random order.

    Examples
    --------
    >>> import numpy as np, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((300, 300), "float32"))}, attrs={"crs": "EPSG:32633"},
    ...                 coords={"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)})
    >>> patches = xee_tf.open_patches(ds.chunk(100), patch_dimensions=128, kernel_size=32)
    >>> patches
    <xee_tf.Patches: 4 patches of 128 x 128 pixels (160 x 160 with margins), bands 'B4'>
    >>> patches[0]["B4"].shape, patches[1:3]["B4"].shape, patches.grid.halo(0)
    ((160, 160), (2, 160, 160), Window(top=-16, bottom=144, left=-16, right=144))
    """
    options = ExportOptions(
        patch_dimensions=patch_dimensions,  # type: ignore[arg-type]  # converted by its check
        kernel_size=kernel_size,  # type: ignore[arg-type]
        default_value=default_value,
        tensor_depths=tensor_depths,
        feature_types=feature_types,
        edge=edge,
    )
    source = ExportSource(region=region, region_crs=region_crs, mask=mask, crs=crs, transform=transform)
    found = plan_patches(image, bands, options, source, patches, memory)
    found._reader  # noqa: B018  # raises an error if memory is too small
    return found


def plan_patches(
    image: Image,
    bands: Sequence[str] | None,
    options: ExportOptions,
    source: ExportSource,
    patches: PatchSelection | Sequence[int] | None,
    memory: int | str,
) -> Patches:
    """Return the patches of a raster; see `open_patches`."""
    dataset = whole_image(image, "read", crs=source.crs, transform=source.transform)
    mask = source.mask if isinstance(source.mask, str) else None
    if bands is not None:
        names = read_names(bands, "bands")
        available = [name for name, each in dataset.data_vars.items() if each.ndim and name != mask]
        if unknown := [name for name in names if name not in available]:
            raise OptionError(f"The image has no band {unknown[0]!r}; available: {quoted(available)}.")
        kept = [*names, *([mask] if mask in dataset else [])]
        # Grid mappings are variables without dimensions.
        kept += [str(name) for name, each in dataset.data_vars.items() if not each.ndim]
        dataset = dataset[kept]
    job = image_job(dataset, options, source)
    for message in job.plan.band_plan.notes:
        warn(message)
    return Patches(job, _numbers(patches, job.plan.grid), _bytes(memory))


def specs_of(patches: Patches) -> tuple[BandSpec, ...]:
    """Return the bands of patches, with their dimensions."""
    return patches._job.plan.bands


def reader_of(
    patches: Patches, stored: Sequence[Stored], convert: Convert, *, want_masks: bool = False
) -> PatchReader:
    """Return a reader of patches that keeps other arrays than the bands.

    Parameters
    ----------
    patches : Patches
        The patches.
    stored : sequence of Stored
        The arrays.
    convert : callable
        Converts the bands of a block to them.
    want_masks : bool
        Whether `convert` uses the masks of the bands.
    """
    return PatchReader(patches._job, patches.numbers, patches._memory, stored, convert, want_masks)


def _numbers(patches: Any, grid: PatchGrid) -> NDArray[np.int64]:
    """Return the numbers of the patches to read."""
    count = len(grid)
    if patches is None:
        return np.arange(count)
    if isinstance(patches, PatchSelection):
        require_margin(patches.grid, grid, "patches")
        patches = on_grid(patches, grid, "patches").patches
    numbers = np.asarray(patches)
    if numbers.ndim != 1 or not len(numbers) or numbers.dtype.kind not in "iu":
        raise OptionError(
            "patches must be an xee_tf.PatchSelection, or a sequence of at least one number of a patch, such "
            f"as [0, 5]; got {excerpt(patches)}."
        )
    wrong = numbers[(numbers < 0) | (numbers >= count)]
    if len(wrong):
        raise OptionError(
            f"patches has {wrong[0]}, but the grid has {counted(count, 'patch', 'patches')}, numbered from 0 "
            f"to {count - 1}."
        )
    return numbers.astype("int64")


def _bytes(memory: Any) -> int:
    """Return a number of bytes from an option."""
    try:
        if isinstance(memory, bool):
            raise ValueError
        return check_count(parse_bytes(memory) if isinstance(memory, str) else memory, "memory")
    except ValueError:
        raise OptionError(
            f"memory must be a number of bytes, or a text such as '2 GiB'; got {excerpt(memory)}."
        ) from None


@dataclass(frozen=True, eq=False)
class _Window:
    """A window of an order."""

    order: PatchOrder
    number: int

    @property
    def blocks(self) -> list[Block]:
        """The blocks."""
        return self.order.windows[self.number]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Window) and other.order is self.order and other.number == self.number

    def __hash__(self) -> int:
        return hash((id(self.order), self.number))


class PatchReader:
    """Reads patches from blocks in memory, and loads the next blocks in a thread.

    Parameters
    ----------
    job : ExportJob
        The plan and the arrays of the raster.
    numbers : ndarray
        The numbers of the patches in the grid.
    memory : int
        Maximum size of the pixels in memory in bytes.
    stored : sequence of Stored
        The arrays that are kept of each block.
    convert : callable
        Converts the bands of a block to them.
    want_masks : bool
        Whether `convert` uses the masks of the bands.
    """

    def __init__(
        self,
        job: ExportJob,
        numbers: NDArray[np.int64],
        memory: int,
        stored: Sequence[Stored],
        convert: Convert,
        want_masks: bool,
    ) -> None:
        plan = job.plan
        self._grid, self._stored = plan.grid, stored
        self._layout = layout = _layout(job)
        self._places = np.stack(np.divmod(numbers, plan.grid.patches_per_row))
        owners = _owners(layout.y), _owners(layout.x)
        columns = len(layout.x)
        in_grid = owners[0][self._places[0]] * columns + owners[1][self._places[1]]
        found, self._of_patch = np.unique(in_grid, return_inverse=True)
        self._blocks: list[Block] = [divmod(number, columns) for number in found.tolist()]
        self._sizes = BlockSizes.of(layout, sum(each.pixel_bytes for each in stored))
        self._sweeps = sweeps_of(self._blocks, self._sizes, memory // _WINDOWS)
        strips = max(1, self._sweeps) * self._sizes.strips_of_sweep
        largest = max(self._sizes.blocks[block] for block in self._blocks)
        if strips + _WINDOWS * largest > memory:
            raise OptionError(
                f"memory={format_bytes(memory)} is too small: blocks of whole chunks and patches have up to "
                f"{format_bytes(largest)}. Pass at least memory={strips + _WINDOWS * largest}, or open the "
                "raster with smaller chunks, for example chunks={'y': 1024, 'x': 1024}."
            )
        self._limit = (memory - strips) // _WINDOWS
        self._memory = BlockMemory(
            BlockSource(
                job.arrays,
                plan.band_plan.sources,
                layout,
                plan.band_plan.rules,
                plan.band_plan.has_mask,
                want_masks,
            ),
            convert,
            _KEPT * self._limit,
            strips,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="xee-tf-patches")
        self._lock = threading.Lock()
        self._ahead: tuple[PatchOrder | None, int] = (None, -1)  # the window that was loaded last
        self._loading: Future[None] | None = None
        self._turns = Turns(_KEPT)

    def order(self, shuffle: bool, seed: int | None, epoch: int) -> PatchOrder:
        """Return the order of the patches of an epoch."""
        if not shuffle:
            return in_given_order(self._blocks, self._of_patch, self._sizes, self._limit)
        random = generator(seed, epoch)
        return shuffled(self._blocks, self._of_patch, self._sizes, self._limit, self._sweeps, random)

    def turn(self, order: PatchOrder, begin: int, end: int) -> Turn:
        """Return the turn of a request for the patches ``begin..end`` of an order; see `load`.

        Enter it where the order of requests is decided.
        """
        return Turn(self._turns, [_Window(order, number) for number in order.windows_of(begin, end)])

    def load(self, turn: Turn, order: PatchOrder, begin: int, end: int) -> None:
        """Load the windows of the patches ``begin..end`` of an order, and begin to load the next one.

        They stay in memory until the turn ends. Requests that run ahead of a thread that the system holds up
        wait if their windows and its windows do not fit in memory.

        Windows that do not fit in memory together are left to `read`. It also raises the errors of a window
        that was loaded in the background, because it loads it again.
        """
        turn.wait()
        # Also those of other threads, in the order of their requests: they count as used last. And a window
        # that is loaded after the next one may need chunks that have been removed.
        if len(turn.windows) < _KEPT:
            for window in self._turns.used:
                self._memory.get(window.blocks)
        self._load_ahead(order, order.windows_of(begin, end).stop)

    def _load_ahead(self, order: PatchOrder, following: int) -> None:
        """Begin to load a window, unless a thread that was held up needs the memory."""
        with self._lock:
            ahead = self._ahead
            if following >= len(order.windows) or (ahead[0] is order and ahead[1] >= following):
                return
            if self._is_near(order, following) and (self._loading is None or self._loading.done()):
                self._loading = self._thread.submit(self._load_near, order, following)
                self._ahead = order, following

    def _load_near(self, order: PatchOrder, number: int) -> None:
        if self._is_near(order, number):  # otherwise this thread was held up
            self._memory.get(order.windows[number])

    def _is_near(self, order: PatchOrder, number: int) -> bool:
        """Return whether a window fits in memory with those that are used, and those between them."""
        used = self._turns.used
        return all(each.order is order and 0 <= number - each.number < _KEPT for each in used)

    def read(self, positions: NDArray[np.int64], trims: Sequence[bool]) -> list[NDArray[Any]]:
        """Return patches.

        Parameters
        ----------
        positions : ndarray
            The positions of the patches in the selection.
        trims : sequence of bool
            For each of the arrays, whether its margin is omitted.

        Returns
        -------
        list of ndarray
            Arrays (patch, step, y, x, ...).
        """
        grid, zero = self._grid, Size(x=0, y=0)
        out = [
            np.empty(
                (len(positions), each.depth, *(grid.patch if trim else grid.stored).shape, *each.shape),
                each.dtype,
            )
            for each, trim in zip(self._stored, trims, strict=True)
        ]
        numbers = self._of_patch[positions]
        places = self._places[:, positions]
        needed = np.unique(numbers)
        for run in self._runs(needed.tolist()):
            blocks = self._memory.get([self._blocks[number] for number in run])
            for number in run:
                at = np.flatnonzero(numbers == number)
                block = blocks[self._blocks[number]]
                for each, (array, trim) in enumerate(zip(out, trims, strict=True)):
                    offset = grid.margin if trim else zero
                    cut_patches(array, at, block, each, places[:, at], grid.patch, offset)
        return out

    def _runs(self, numbers: Sequence[int]) -> Iterator[list[int]]:
        """Divide blocks into runs that are in memory together."""
        run: list[int] = []
        size = 0
        for number in numbers:
            own = self._sizes.blocks[self._blocks[number]]
            if run and size + own > self._limit:
                yield run
                run, size = [], 0
            run.append(number)
            size += own
        if run:
            yield run


def _layout(job: ExportJob) -> BlockLayout:
    """Return blocks that need pixels only of those above them and to their left, also on a cluster."""
    plan = job.plan
    layout = plan.block_layout
    return lay_out_blocks(
        plan.grid,
        Size(x=layout.x.length, y=layout.y.length),
        layout.planes,
        pixel_bytes(plan.band_plan.rules),
        1,
        centered=(False, False),
    )


def _owners(axis: Any) -> NDArray[np.int64]:
    """Return the block of each patch along an axis."""
    return np.repeat(np.arange(len(axis)), [len(axis.owned(block)) for block in range(len(axis))])
