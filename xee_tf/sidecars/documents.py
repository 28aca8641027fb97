"""Encode bands, the grid and shards as parts of the JSON of a manifest, and decode them.

Invalid values raise a TypeError or ValueError; the caller adds the file name.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from affine import Affine

from xee_tf.errors import excerpt
from xee_tf.geometry import PatchGrid, Size
from xee_tf.records import Kind
from xee_tf.sidecars.bands import BandSpec
from xee_tf.sidecars.packing import (
    matrix_of,
    pack,
    read_count,
    read_number,
    read_size,
    read_text,
    unpack,
    write_number,
)
from xee_tf.statistics import BandStatistics
from xee_tf.storage import Location

__all__ = [
    "ManifestShard",
    "ShardInfo",
    "band_document",
    "band_of",
    "check_band_positions",
    "grid_document",
    "grid_of",
    "statistics_document",
    "statistics_of",
]

_MOST_VALUES = 1 << 20  # per pixel of a band; arrays of this length are created before a record is read
_DTYPE = re.compile(r"bool|(u?int|float)\d{1,3}|[<>|=]?[biuf]\d{1,2}")


def band_document(band: BandSpec) -> dict[str, Any]:
    """Encode a band for a manifest."""
    document: dict[str, Any] = {
        "name": band.name,
        "feature": band.feature,
        "first": band.first,
        "dims": list(band.dims),
        "shape": list(band.shape),
    }
    for key in ("dtype", "kind", "units"):
        if getattr(band, key) is not None:
            document[key] = getattr(band, key)
    if band.default is not None:
        document["default"] = write_number(band.default)
    if band.nodata:
        document["nodata"] = [write_number(number) for number in band.nodata]
    return document


def band_of(document: Mapping[str, Any]) -> BandSpec:
    """Decode a band from `band_document`."""
    name = read_text(document["name"], "the name of a band")
    dims = tuple(read_text(dim, f"a dimension of {name!r}") for dim in document["dims"])
    shape = tuple(read_count(length, f"the shape of {name!r}", least=1) for length in document["shape"])
    if len(dims) != len(shape):
        raise ValueError(f"the dimensions {list(dims)} of {name!r} do not match its shape {list(shape)}")
    if math.prod(shape) > _MOST_VALUES:
        raise ValueError(f"{name!r} has {math.prod(shape):,} values per pixel; at most {_MOST_VALUES:,}")
    facts: dict[str, Any] = {"nodata": tuple(read_number(number) for number in document.get("nodata", ()))}
    if "default" in document:
        facts["default"] = read_number(document["default"])
    for key in ("dtype", "units"):
        if key in document:
            facts[key] = read_text(document[key], f"{key} of {name!r}")
    if "dtype" in facts and not _is_number_dtype(facts["dtype"]):
        raise ValueError(f"the dtype {excerpt(facts['dtype'])} of {name!r} is not a numeric dtype")
    kind = document.get("kind")
    if kind not in (None, *get_args(Kind)):
        raise ValueError(f"the band {name!r} has the unknown kind {kind!r}")
    return BandSpec(
        name,
        dims,
        shape,
        feature=read_text(document["feature"], f"the feature of {name!r}"),
        first=read_count(document["first"], f"the first step of {name!r}"),
        kind=kind,
        **facts,
    )


def statistics_document(statistics: BandStatistics) -> dict[str, Any]:
    """Encode the statistics of a band for a manifest."""
    document: dict[str, Any] = {"count": statistics.count, "masked": statistics.masked}
    for key in ("min", "max", "mean", "std"):
        document[key] = write_number(getattr(statistics, key))
    if statistics.classes is not None:
        document["classes"] = {str(value): count for value, count in statistics.classes.items()}
    return document


def statistics_of(document: Mapping[str, Any]) -> BandStatistics:
    """Decode the statistics of a band from `statistics_document`.

    Examples
    --------
    >>> statistics = BandStatistics(2, 0, -1, 5, 2.0, 3.0, {-1: 1, 5: 1})
    >>> statistics_of(statistics_document(statistics)) == statistics
    True
    """
    count, masked = (
        read_count(document[key], f"{key} of the statistics of a band") for key in ("count", "masked")
    )
    least, greatest, mean, std = (read_number(document[key]) for key in ("min", "max", "mean", "std"))
    classes = document.get("classes")
    if classes is not None:
        classes = {int(value): read_count(count, "a number of pixels") for value, count in classes.items()}
        if any(not -1 << 63 <= value < 1 << 64 for value in classes):
            raise ValueError("a class in the statistics of a band is not a number of 64 bits")
    return BandStatistics(count, masked, least, greatest, mean, std, classes)


def _is_number_dtype(text: str) -> bool:
    try:
        return _DTYPE.fullmatch(text) is not None and np.dtype(text).kind in "biuf"
    except TypeError:
        return False


def check_band_positions(bands: Sequence[BandSpec]) -> None:
    """Raise ValueError unless the bands of each feature are contiguous and have unique names."""
    if not bands:
        raise ValueError("it has no bands")
    if len({band.name for band in bands}) < len(bands):
        raise ValueError(f"the band names {[band.name for band in bands]} are not unique")
    ends: dict[str, int] = {}
    for band in sorted(bands, key=lambda band: band.first):
        if band.first != ends.get(band.feature, 0):
            raise ValueError(
                f"the band {band.name!r} starts at {band.first} in {band.feature!r}; expected "
                f"{ends.get(band.feature, 0)}"
            )
        ends[band.feature] = band.first + band.depth


def grid_document(grid: PatchGrid) -> dict[str, Any]:
    """Encode the grid for a manifest."""
    return {
        "crs": grid.crs,
        "affine": matrix_of(grid.affine),
        "shape": list(grid.shape.xy),
        "patch": list(grid.patch.xy),
        "columns": grid.patches_per_row,
        "rows": grid.rows,
        "edge": grid.edge,
        "origin": list(grid.origin.xy),
    }


def grid_of(document: Mapping[str, Any], kernel: Size | None) -> PatchGrid:
    """Decode a grid from `grid_document`, with the margin for a kernel."""
    affine = [float(read_number(value)) for value in document["affine"]]
    if len(affine) != 6 or not all(map(math.isfinite, affine)):
        raise ValueError("the affine of the grid must be six finite numbers")
    crs = document["crs"]
    grid = PatchGrid(
        shape=read_size(document["shape"], "the shape of the grid"),
        patch=read_size(document["patch"], "the patch of the grid"),
        margin=PatchGrid.margin_of(kernel or Size(x=1, y=1)),
        affine=Affine(*affine),
        crs=None if crs is None else read_text(crs, "the CRS of the grid"),
        edge=document.get("edge", "drop"),
        origin=read_size(document.get("origin", [0, 0]), "the origin of the grid", least=0),
    )
    for name, right in (("columns", grid.patches_per_row), ("rows", grid.rows)):
        if document.get(name, right) != right:
            raise ValueError(f"the grid has {right} {name}, not {document[name]}")
    return grid


@dataclass(frozen=True)
class ShardInfo:
    """One TFRecord file.

    Parameters
    ----------
    path : str
        Path or URL of the file.
    records : int
        Number of records.
    bytes : int
        Size of the file in bytes.
    crc32c : int
        CRC-32C of the whole file, as object stores report it.

    Examples
    --------
    >>> ShardInfo("out/scene-00000.tfrecord.gz", records=9, bytes=4096, crc32c=0xE3069283).records
    9
    """

    path: str
    records: int
    bytes: int
    crc32c: int


@dataclass(frozen=True, eq=False)
class ManifestShard:
    """One TFRecord file of an export, as the manifest describes it.

    Parameters
    ----------
    file : ShardInfo
        The file; its path is the file name without the folder.
    run_records : ndarray of uint32
        Number of records in each run of consecutive records that are compressed together.
    run_crcs : ndarray of uint32
        For each run, the CRC-32C over the footers of its records (the four bytes after the data of each
        record). It identifies the content of the run, whether or not the file is compressed.
    patches : ndarray of int64, optional
        The patch index of each record, if patches were dropped.
    run_sizes : ndarray of int64, optional
        Number of bytes of each run in the file; the first run includes the header of a gzip file. Missing in
        files of version 0.1.0.
    """

    file: ShardInfo
    run_records: npt.NDArray[np.uint32]
    run_crcs: npt.NDArray[np.uint32]
    patches: npt.NDArray[np.int64] | None = None
    run_sizes: npt.NDArray[np.int64] | None = None

    @property
    def run_starts(self) -> npt.NDArray[np.int64]:
        """The number of the first record of each run, and the end."""
        return np.concatenate([[0], np.cumsum(self.run_records, dtype=np.int64)])

    def same_kind(self, location: Location) -> bool:
        """Return whether a file has the same compression, by its name, and hence the same bytes."""
        return location.name.endswith(".gz") == self.file.path.endswith(".gz")

    def is_same_file(self, location: Location, size: int) -> bool:
        """Return whether a file has the compression and the size that the manifest describes."""
        return self.same_kind(location) and size == self.file.bytes

    def document(self) -> dict[str, Any]:
        """Encode the shard for a manifest."""
        document = {
            "name": self.file.path,
            "records": self.file.records,
            "bytes": self.file.bytes,
            "crc32c": f"{self.file.crc32c:08x}",
            "runRecords": pack(self.run_records, "<u4"),
            "runCrcs": pack(self.run_crcs, "<u4"),
        }
        if self.run_sizes is not None and self.run_sizes.max(initial=0) < 1 << 32:
            document["runSizes"] = pack(self.run_sizes, "<u4")
        if self.patches is not None:
            document["patches"] = pack(self.patches, "<i8")
        return document

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ManifestShard:
        """Decode a shard from `document`."""
        name = read_text(document["name"], "the name of a shard")
        if "/" in name or "\\" in name:
            raise ValueError(f"the shard name {name!r} contains a folder")
        crc = document["crc32c"]
        file = ShardInfo(
            name,
            read_count(document["records"], f"records of {name}"),
            read_count(document["bytes"], f"bytes of {name}"),
            int(read_text(crc, f"crc32c of {name}"), 16),
        )
        shard = cls(
            file,
            unpack(document.get("runRecords", ""), "<u4"),
            unpack(document.get("runCrcs", ""), "<u4"),
            unpack(document["patches"], "<i8") if "patches" in document else None,
            unpack(document["runSizes"], "<u4").astype(np.int64) if "runSizes" in document else None,
        )
        if len(shard.run_records) != len(shard.run_crcs):
            raise ValueError(f"{name} has {len(shard.run_records)} runs but {len(shard.run_crcs)} checksums")
        if len(shard.run_records) and int(shard.run_records.sum(dtype=np.int64)) != file.records:
            raise ValueError(f"the runs of {name} do not add up to its {file.records} records")
        sizes = shard.run_sizes
        if sizes is not None and (len(sizes) != len(shard.run_crcs) or sizes.sum() not in (0, file.bytes)):
            raise ValueError(f"the runs of {name} do not add up to its {file.bytes} bytes")
        return shard
