"""From a mixer and its shards to an opened image: what there is, and where."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import MissingShardError, OptionError, RecordError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef.crs import crs_text, read_crs
from xee_tf.reading.content import (
    Content,
    RecordOrder,
    check_depths,
    choose_bands,
    choose_features,
    content_of,
    infer_content,
    order_of,
    read_order,
    with_depths,
)
from xee_tf.reading.masking import masked_values
from xee_tf.records.example import Kind, RecordLayout
from xee_tf.records.framing import FRAMING, iter_frames
from xee_tf.records.sequence import SequenceLayout
from xee_tf.records.sequence_wire import read_sequence_layout
from xee_tf.shards.access import Shard, read_records
from xee_tf.shards.matching import match_shards
from xee_tf.shards.opening import first_record, number_shards, open_shards
from xee_tf.shards.runs import ShardInfo
from xee_tf.sidecars import BandDimensions, ImageManifest, Mixer
from xee_tf.sidecars.described import describe_export, manifest_name
from xee_tf.sidecars.find import Exported, ExportedImage
from xee_tf.sidecars.names import prefix_of
from xee_tf.sidecars.shard_files import check_order, find_records, listed_shards
from xee_tf.storage import Location, PathLike

__all__ = ["ImageReader", "Records", "open_reader"]

Records = PathLike | Location | ExportedImage | Sequence[PathLike | Location | ShardInfo]

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
    bands : tuple of BandDimensions
        The bands that are read.
    layout : RecordLayout or SequenceLayout
        The features that hold them.
    order : RecordLayout or SequenceLayout
        All features of the first record, in its order.
    record_bytes : int
        Bytes of a record, about.
    verify : bool
        Whether checksums of records are checked.
    per_patch : int
        Records for a patch: 1, or as many as it has pixels.
    coords : mapping from dimension to ndarray
        Coordinates of the bands' further dimensions.
    fill : float
        What stands for the steps that a SequenceExample lacks.
    depths : mapping from feature to int
        Values per pixel.
    share : bool
        Whether bands are read one by one, so that inflated bytes are worth keeping.
    masked : mapping from band to number
        The value in the records that is read as NaN.
    patches : ndarray of int64, optional
        The number of the patch in every record, or group of `per_patch` records, where patches were dropped.
    source : str, optional
        The file that names the export: its mixer, or its manifest.
    """

    grid: PatchGrid
    shards: tuple[Shard, ...]
    bands: tuple[BandDimensions, ...]
    layout: RecordOrder
    order: RecordOrder
    record_bytes: int
    verify: bool
    per_patch: int = 1
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    fill: float = 0
    depths: Mapping[str, int] = field(default_factory=dict)
    share: bool = True
    masked: Mapping[str, float] = field(default_factory=dict)
    patches: npt.NDArray[np.int64] | None = None
    source: str | None = None

    @property
    def dtypes(self) -> dict[str, np.dtype[Any]]:
        """Each band's dtype: float32, int64 or uint8; a float type where values are masked."""
        kinds = {feature.name: feature.kind for feature in self.layout.features}
        dtypes = {band.name: _DTYPES[kinds[band.feature]] for band in self.bands}
        return {
            name: np.result_type(dtype, np.float32) if name in self.masked else dtype
            for name, dtype in dtypes.items()
        }

    @property
    def records(self) -> int:
        """Records in all shards."""
        return sum(shard.records for shard in self.shards)

    @property
    def sequential(self) -> bool:
        """Whether records can be reached only through those in front of them."""
        return any(shard.access == "stream" for shard in self.shards)

    def band(self, name: str) -> BandDimensions:
        """The band of a name."""
        return next(band for band in self.bands if band.name == name)


def open_reader(
    mixer: Exported | Mixer,
    records: Records | None = None,
    *,
    crs: Any = None,
    default_value: float | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
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
    name, described, manifest, location = describe_export(mixer, records is not None, storage_options)
    if crs is not None:
        described = replace(described, crs=crs_text(read_crs(crs)))
    shards = open_shards(_locations(records, location, manifest, storage_options))
    patch, total = described.patch, described.total_patches
    patches = manifest.patches if manifest is not None and records is None else None
    if patches is not None:
        total = len(patches)
    beside = manifest_name(location) if records is None else None
    source, data = _first_record(shards)
    planned = order_of(manifest) if manifest is not None and not total else None  # all patches were dropped
    if data is None and planned is None:
        raise MissingShardError(f"{name} announces {described.total_patches} patches; the shards hold none.")
    with _in_first_record(source):
        order, steps = (planned, {}) if data is None and planned is not None else read_order(data or b"")
        content, infer = _content(order, steps, patch, kernel, manifest, beside, tensor_depths, bands)
    record_bytes = len(data or b"") + FRAMING
    record_size = record_bytes if order.exact and data is not None else None
    if isinstance(order, SequenceLayout) and (infer is not None or manifest is None or manifest.ragged):
        record_size = None  # others may have fewer steps
    if patches is not None:  # the index counts the patches that were dropped, too
        shards = [replace(shard, announced=None) for shard in shards]
    counted = number_shards(shards, record_size, total * content.per_patch)
    if manifest is not None and manifest.patches is not None and patches is None:
        held, kept = sum(shard.records for shard in counted), len(manifest.patches)
        if held in (kept, kept * patch.pixels) and held not in (total, total * patch.pixels):
            patches, total = manifest.patches, kept  # predictions of the patches that were written
    if infer is not None and isinstance(order, RecordLayout) and patch.pixels > 1:
        # Lists shorter than a patch are taken for pixels; what counts in the end is how many there are.
        pixels = content.per_patch == 1
        if sum(shard.records for shard in counted) == total * (patch.pixels if pixels else 1):
            with _in_first_record(source):
                content = infer(pixels=pixels)
    announced = f"{name} announces {total} records"
    if content.per_patch > 1:
        announced = f"{name} announces {total} patches of {patch.pixels} pixels, a record each"
    named = records is None and patches is None
    _check_counts(counted, total * content.per_patch, announced, record_size is not None, named)
    if manifest is not None and records is None:
        counted = match_shards(counted, manifest.shards)
    if isinstance(order, SequenceLayout) and 0 in steps.values():
        order = read_sequence_layout(_records(counted))  # a series says of what kind it is when it has a step
    known = {band.name: band for band in content.bands}
    chosen = tuple(known[each] for each in choose_bands(list(known), bands))
    reader = ImageReader(
        grid=described.grid(content.margin),
        shards=tuple(counted),
        bands=chosen,
        layout=choose_features(order, list(dict.fromkeys(band.feature for band in chosen))),
        order=order,
        record_bytes=record_bytes,
        verify=verify,
        per_patch=content.per_patch,
        coords={dim: content.coords[dim] for band in chosen for dim in band.dims if dim in content.coords},
        fill=content.fill,
        depths=content.depths,
        patches=patches,
        source=None if location is None else str(location),
    )
    if default_value is None:
        return reader
    written = None if manifest is None or infer is not None else manifest.default_value
    return replace(reader, masked=masked_values(reader.bands, reader.dtypes, default_value, written))


def _locations(
    records: Records | None,
    mixer: Location | None,
    manifest: ImageManifest | None,
    storage_options: Mapping[str, Any] | None,
) -> list[Location]:
    """The shards: those that the user names, or those beside the mixer."""
    if records is not None:
        listed: Any = records
        if isinstance(records, ExportedImage):
            listed, storage_options = records.files, records.manifest.storage_options
        elif isinstance(records, str) or not isinstance(records, Iterable):
            listed = [records]
        paths = [record.path if isinstance(record, ShardInfo) else record for record in listed]
        locations = [Location.of(path, storage_options) for path in paths]
        if not locations:
            raise OptionError("records is empty: name the shards in order, or leave it out.")
        check_order(locations)
        return locations
    if mixer is None:
        raise OptionError("A Mixer does not know where its shards are: give them as records=[...], in order.")
    try:
        return find_records(mixer)
    except MissingShardError:
        if manifest is None or not manifest.shards or prefix_of(mixer).siblings():
            raise
        return listed_shards(mixer, manifest.shards)  # a server that lists nothing, not even the mixer


@contextmanager
def _in_first_record(shard: Shard) -> Iterator[None]:
    """Errors about the first record name it."""
    try:
        yield
    except RecordError as error:
        raise RecordError(f"{shard}: record 0: {error}") from None


def _content(
    order: RecordOrder,
    steps: Mapping[str, int],
    patch: Size,
    kernel: Size | None,
    manifest: ImageManifest | None,
    beside: str | None,
    depths: Mapping[str, int] | None,
    bands: Sequence[str] | None,
) -> tuple[Content, Callable[..., Content] | None]:
    """What records hold: by the manifest if it goes with them, or else by the lists of the first record.

    Parameters
    ----------
    beside : str or None
        The manifest's name if the records lie beside it, and so must go with it.

    Others are those of `content_of` and `infer_content`.

    Returns
    -------
    content : Content
    infer : callable or None
        ``infer(pixels=...)`` gives it anew once it is known whether records are pixels or patches; None where
        the manifest tells.
    """
    names = [feature.name for feature in order.features]
    if manifest is not None:
        content = content_of(order, manifest, patch, kernel, steps)
        if depths and content is not None:
            given = check_depths(depths, [band.name for band in manifest.bands])
            content = content_of(order, with_depths(manifest, given), patch, kernel, steps)
            if content is None:
                known = {band.name: band.depth for band in manifest.bands if band.name in given}
                raise RecordError(
                    f"tensor_depths={given} does not go with the records, which have the depths {known} of "
                    f"{beside or 'the manifest'}. Leave it out."
                )
        if content is not None:
            return content, None
        if beside is not None and not depths:
            raise RecordError(
                f"it holds {names}, which does not go with {beside}. The shards may be of another export; "
                "if not, remove that file, or give the depths of bands with tensor_depths={band: depth}."
            )
    names = choose_bands(names, bands)
    infer = partial(infer_content, order, patch, names=names, depths=depths, steps=steps)
    content, kernel = _infer(infer, kernel, manifest)
    return content, partial(infer, kernel=kernel)


def _infer(
    infer: Callable[..., Content], kernel: Size | None, manifest: ImageManifest | None
) -> tuple[Content, Size | None]:
    """What records hold by their lists, with the kernel of the export where it fits."""
    if kernel is not None or manifest is None or manifest.kernel is None:
        return infer(kernel=kernel), kernel
    with suppress(RecordError, OptionError):
        return infer(kernel=manifest.kernel), manifest.kernel
    try:
        return infer(kernel=None), None
    except (RecordError, OptionError):
        with suppress(RecordError, OptionError):  # predictions of the patches alone, without their margins
            return infer(kernel=Size(x=1, y=1)), Size(x=1, y=1)
        raise


def _first_record(shards: Sequence[Shard]) -> tuple[Shard, bytes | None]:
    """The first shard that holds a record, and that record; None if none does."""
    for shard in shards:
        data = first_record(shard)
        if data is not None:
            return shard, data
    return shards[0], None


def _records(shards: Sequence[Shard]) -> Iterator[memoryview]:
    """All records, from the first one on."""
    for shard in shards:
        for first, buffer in read_records(shard, 0, shard.records):
            yield from iter_frames(buffer, source=str(shard), first=first)


def _check_counts(shards: Sequence[Shard], total: int, announced: str, exact: bool, named: bool) -> None:
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
    message = f"{announced}; {held}"
    if sum(counts) > total:
        raise RecordError(f"{message} The mixer or the shards are of another export.")
    if named and exact and counts[-1] == full:
        raise MissingShardError(f"{message} Shards after {shards[-1]} are missing.")
    raise RecordError(f"{message} A shard is truncated, or shards are missing at the end.")
