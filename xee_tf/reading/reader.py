"""From a mixer and its shards to the pixels of a window."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.dimensions import Dimensions
from xee_tf.errors import MissingShardError, MixerError, OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size, Window
from xee_tf.mixer import Mixer
from xee_tf.reading.access import Shard, read_records
from xee_tf.reading.find import check_order, find_records
from xee_tf.reading.margins import infer_margin
from xee_tf.reading.shards import first_record, number_shards, open_shards
from xee_tf.records.decoding import Batch, decode_frames, read_layout
from xee_tf.records.example import Kind, RecordLayout
from xee_tf.storage import Location, PathLike

__all__ = [
    "ImageReader",
    "Records",
    "fill_patches",
    "fill_window",
    "open_reader",
    "read_patches",
    "read_window",
    "window_records",
]

Records = PathLike | Location | Sequence[PathLike | Location]

_DTYPES: dict[Kind, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "int64": np.dtype(np.int64),
    "bytes": np.dtype(np.uint8),
}


@dataclass(frozen=True, eq=False)
class ImageReader:
    """An opened image: small and picklable, reads nothing by itself.

    Parameters
    ----------
    grid : PatchGrid
        The patches, with the margin that their records have.
    shards : tuple of Shard
    layout : RecordLayout
        The bands that are read.
    order : RecordLayout
        All features of the first record, in its order.
    verify : bool
        Whether checksums of records are checked.
    share : bool
        Whether bands are read one by one, so that inflated bytes are worth keeping.
    """

    grid: PatchGrid
    shards: tuple[Shard, ...]
    layout: RecordLayout
    order: RecordLayout
    verify: bool
    share: bool = True

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Each band's dtype: float32, int64 or uint8."""
        return {feature.name: _DTYPES[feature.kind] for feature in self.layout.features}

    @property
    def sequential(self) -> bool:
        """Whether records can be reached only through those in front of them."""
        return any(shard.access == "stream" for shard in self.shards)


def open_reader(
    mixer: PathLike | Location | Mixer,
    records: Records | None = None,
    *,
    kernel_size: int | Sequence[int] | None = None,
    bands: Sequence[str] | None = None,
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> ImageReader:
    """Open the shards of an export and check that they are whole; see `xee_tf.open_image`.

    Raises
    ------
    MissingShardError, MixerError, OptionError, RecordError
        As `xee_tf.open_image` says.
    """
    kernel = None if kernel_size is None else Size.from_xy(kernel_size, "kernel_size")
    if isinstance(mixer, Mixer):
        if records is None:
            raise OptionError(
                "A Mixer does not know where its shards are: give them as records=[...], in order."
            )
        name, described = "the mixer", mixer
    else:
        location = Location.of(mixer, storage_options)
        name, described = str(location), _read_mixer(location)
    if records is None:
        _refuse_array_bands(location, bands)
        locations = find_records(location)
    else:
        listed = (
            [records] if isinstance(records, (str, Location)) or hasattr(records, "__fspath__") else records
        )
        locations = [Location.of(record, storage_options) for record in listed]
        check_order(locations)
    shards = open_shards(locations)
    data = source = None
    for source in shards:
        data = first_record(source)
        if data is not None:
            break
    if data is None:
        raise MissingShardError(f"{name} announces {described.total_patches} records; the shards hold none.")
    try:
        order = read_layout(data)
        layout = _choose(order, bands)
        margins = [
            infer_margin(described.patch, feature.size, kernel=kernel, band=feature.name)
            for feature in layout.features
        ]
    except RecordError as error:
        raise RecordError(f"{source}: record 0: {error}") from None
    for feature, margin in zip(layout.features, margins, strict=True):
        if margin != margins[0]:
            raise RecordError(
                f"{source}: the bands {layout.features[0].name!r} and {feature.name!r} have "
                f"{layout.features[0].size} and {feature.size} values a record: choose some with bands=[...]."
            )
    counted = number_shards(shards, order.framed_size if order.exact else None, described.total_patches)
    _check_counts(counted, described.total_patches, name, order.exact, records is None)
    return ImageReader(described.grid(margins[0]), tuple(counted), layout, order, verify)


def _refuse_array_bands(mixer: Location, bands: Sequence[str] | None) -> None:
    """Array bands are not opened yet; taken for scalars with a large margin, they would come out wrong."""
    sidecar = Location(mixer.url.removesuffix("mixer.json") + "dimensions.json", mixer.storage_options)
    if not mixer.url.endswith("mixer.json") or not sidecar.exists():
        return
    found = Dimensions.parse(sidecar.read_bytes().decode(), str(sidecar))
    if found.record != "Example":
        raise OptionError(
            f"{mixer} is of an export of {found.record}s, one for each pixel, which cannot be opened as a "
            "raster yet. TensorFlow reads them with tf.io.parse_sequence_example."
        )
    wanted = [bands] if isinstance(bands, str) else bands
    for band in found.bands:
        if (wanted is None or band.name in wanted) and (band.dims or band.feature != band.name):
            raise OptionError(
                f"{band.name!r} is an array band or was collapsed into one, which cannot be opened as a "
                "raster yet. Choose scalar bands with bands=[...]; TensorFlow reads the feature "
                f"{band.feature!r} with tf.io.FixedLenFeature([steps, height, width], ...)."
            )
    if any(band.feature != band.name for band in found.bands):
        raise OptionError(f"The bands of {mixer} were collapsed into one, which cannot be opened yet.")


def _read_mixer(location: Location) -> Mixer:
    if location.name.endswith((".tfrecord", ".tfrecord.gz")):
        raise MixerError(
            f"{location} is a shard, not a mixer: give the path of the file that ends with mixer.json, "
            "and the shards as records= if they are elsewhere."
        )
    return Mixer.read(location)


def _choose(order: RecordLayout, bands: Sequence[str] | None) -> RecordLayout:
    if bands is None:
        return order
    known = {feature.name: feature for feature in order.features}
    wanted = [bands] if isinstance(bands, str) else list(bands)
    for name in wanted:
        if name not in known:
            raise OptionError(f"There is no band {name!r}; there are {', '.join(map(repr, known))}.")
    if not wanted:
        raise OptionError(f"bands is empty; there are {', '.join(map(repr, known))}.")
    return RecordLayout(tuple(known[name] for name in wanted))


def _check_counts(shards: Sequence[Shard], total: int, mixer: str, exact: bool, named: bool) -> None:
    """Refuse shards that do not hold just the records that the mixer announces, in order.

    `exact`: their records are all of one size; `named`: they were found by their names, and so are
    full, each but the last.
    """
    counts = [shard.records for shard in shards]
    if named and 0 in counts:
        raise RecordError(
            f"{shards[counts.index(0)]} holds no record: it is truncated, or was not fetched whole."
        )
    for shard in shards:
        if shard.announced not in (None, shard.first):
            raise RecordError(
                f"{shard} starts with record {shard.announced} of its export, but {shard.first} records come "
                "before it: shards are out of order, one is missing or truncated, or exports are mixed up."
            )
    full = counts[0]
    if named and exact:
        for i, shard in enumerate(shards):
            if shard.records > full or (shard.records < full and i < len(shards) - 1):
                raise RecordError(
                    f"{shard} holds {shard.records} records, but {shards[0]} holds {full} and only the last "
                    "shard may hold fewer: it is truncated, or shards are out of order. If they are right "
                    "all the same, give them as records=[...]."
                )
    if sum(counts) == total:
        return
    held = f"{shards[0]} holds {full}."
    if len(shards) > 1:
        each = ", ".join(map(str, counts[:20])) + (", ..." if len(counts) > 20 else "")
        held = f"the {len(shards)} shards {shards[0]} to {shards[-1]} hold {sum(counts)} ({each})."
    message = f"{mixer} announces {total} records; {held}"
    if sum(counts) > total:
        raise RecordError(f"{message} The mixer or the shards are of another export.")
    if named and exact and counts[-1] == full:
        raise MissingShardError(f"{message} Shards after {shards[-1]} are missing.")
    raise RecordError(f"{message} A shard is truncated, or shards are missing at the end.")


def read_window(reader: ImageReader, bands: Sequence[str], window: Window) -> dict[str, npt.NDArray[Any]]:
    """The pixels of a window of the raster, without margins.

    Only the records that share a pixel with it are decoded.

    Parameters
    ----------
    reader : ImageReader
    bands : sequence of str
        Bands to read, among those of the reader.
    window : Window
        Must lie inside the raster.

    Returns
    -------
    dict of str to ndarray, shape (height, width)

    Raises
    ------
    RecordError
        If a record is corrupt.
    """
    out = {name: np.empty(window.shape, reader.dtypes[name]) for name in bands}
    for start, stop in window_records(reader.grid, window):
        fill_window(reader, out, window, start, stop)
    return out


def window_records(grid: PatchGrid, window: Window) -> list[tuple[int, int]]:
    """Runs of records that share pixels with a window: the first one, and the one behind the last."""
    if 0 in window.shape:
        return []
    rows = range(window.top // grid.patch.y, -(-window.bottom // grid.patch.y))
    columns = range(window.left // grid.patch.x, -(-window.right // grid.patch.x))
    if len(columns) == grid.columns:
        return [(rows.start * grid.columns, rows.stop * grid.columns)]
    return [(row * grid.columns + columns.start, row * grid.columns + columns.stop) for row in rows]


def fill_window(
    reader: ImageReader, out: Mapping[str, npt.NDArray[Any]], window: Window, start: int, stop: int
) -> None:
    """Put what records ``start`` to ``stop - 1`` hold of a window into its arrays, one a band.

    Raises
    ------
    RecordError
        If a record is corrupt.
    """
    grid = reader.grid
    for record, batch in _batches(reader, _choose(reader.layout, list(out)), start, stop):
        done = 0
        while done < batch.count:
            row, column = divmod(record + done, grid.columns)
            count = min(batch.count - done, grid.columns - column)
            for name, values in batch.values.items():
                patches = values[done : done + count].reshape(count, *grid.stored.shape)
                _place(patches, out[name], grid, window, row, column)
            done += count


def _place(
    patches: npt.NDArray[Any], out: npt.NDArray[Any], grid: PatchGrid, window: Window, row: int, column: int
) -> None:
    """Put neighbouring patches of one row into their window."""
    height, width = grid.patch.shape
    top = row * height
    begin, end = max(top, window.top), min(top + height, window.bottom)
    target = out[begin - window.top : end - window.top]
    patches = patches[:, begin - top + grid.margin.y : end - top + grid.margin.y]
    patches = patches[:, :, grid.margin.x : grid.margin.x + width]
    first, last = column, column + len(patches)
    if first * width < window.left:  # the window begins inside this patch
        stop = min((first + 1) * width, window.right)
        target[:, : stop - window.left] = patches[0, :, window.left - first * width : stop - first * width]
        first += 1
    if last * width > window.right and first < last:  # it ends inside this one
        last -= 1
        left = last * width - window.left
        target[:, left:] = patches[last - column, :, : window.right - last * width]
    if first < last:
        inner = target[:, first * width - window.left : last * width - window.left]
        np.copyto(
            inner.reshape(len(inner), last - first, width),  # a view: only the last axis is split
            patches[first - column : last - column].transpose(1, 0, 2),
        )


def read_patches(
    reader: ImageReader, bands: Sequence[str], start: int, stop: int
) -> dict[str, npt.NDArray[Any]]:
    """Patches as they are stored, with their margins.

    Parameters
    ----------
    reader : ImageReader
    bands : sequence of str
    start, stop : int
        Numbers of the first patch, and of the one behind the last.

    Returns
    -------
    dict of str to ndarray, shape (patches, height, width)

    Raises
    ------
    RecordError
        If a record is corrupt.
    """
    shape = (stop - start, *reader.grid.stored.shape)
    out = {name: np.empty(shape, reader.dtypes[name]) for name in bands}
    fill_patches(reader, out, start, start, stop)
    return out


def fill_patches(
    reader: ImageReader, out: Mapping[str, npt.NDArray[Any]], origin: int, start: int, stop: int
) -> None:
    """Put patches ``start`` to ``stop - 1`` into arrays, one a band, that begin with patch `origin`.

    Raises
    ------
    RecordError
        If a record is corrupt.
    """
    for record, batch in _batches(reader, _choose(reader.layout, list(out)), start, stop):
        for name, values in batch.values.items():
            place = out[name][record - origin : record - origin + batch.count]
            place[...] = values.reshape(place.shape)


def _batches(reader: ImageReader, layout: RecordLayout, start: int, stop: int) -> Iterator[tuple[int, Batch]]:
    """Records ``start`` to ``stop - 1`` of the export, and the number of each batch's first one."""
    for shard in reader.shards:
        begin, end = max(start, shard.first), min(stop, shard.first + shard.records)
        expected = begin
        if begin >= end:
            continue
        span = begin - shard.first, end - shard.first
        for first, buffer in read_records(shard, *span, share=reader.share):
            for batch in decode_frames(
                buffer, layout, orders=(reader.order,), source=str(shard), first=first, verify=reader.verify
            ):
                if expected + batch.count > end:
                    raise RecordError(f"{shard} is corrupt: it holds more records than was counted.")
                yield expected, batch
                expected += batch.count
        if expected < end:
            raise RecordError(f"{shard} is corrupt: it holds fewer records than was counted.")
