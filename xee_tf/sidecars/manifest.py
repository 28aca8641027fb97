"""The manifest: a JSON file next to every export with the information that Earth Engine's files lack.

It is named ``<prefix>-image.tfexport`` for an image and ``<prefix>-table.tfexport`` for a table. With a
manifest, readers need not infer anything, and `xee_tf.verify` checks every byte. Other programs can ignore
it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
from dask.utils import format_bytes

from xee_tf.display import Facts, Listing, Summarized, Summary, abbreviated, by, counted
from xee_tf.geometry import PatchGrid, Size
from xee_tf.georef import grid_picture, grid_rows
from xee_tf.records import Feature, Kind
from xee_tf.sidecars.bands import BandSpec, Record, dim_lengths
from xee_tf.sidecars.coordinates import coordinate_document, read_coordinate
from xee_tf.sidecars.documents import (
    ManifestShard,
    band_document,
    band_of,
    check_band_positions,
    grid_document,
    grid_of,
    statistics_document,
    statistics_of,
)
from xee_tf.sidecars.packing import read_count, read_number, read_size, read_text, render, write_number
from xee_tf.statistics import BandStatistics, statistics_cells
from xee_tf.version import __version__

__all__ = [
    "FORMAT_VERSION",
    "ImageManifest",
    "Manifest",
    "TableColumn",
    "TableManifest",
    "TablePatches",
]

FORMAT_VERSION = "1.0"  # readers reject other major versions and ignore unknown keys


@dataclass(frozen=True, eq=False, repr=False)
class ImageManifest(Summarized):
    """The manifest of an image export.

    Parameters
    ----------
    record : {"Example", "SequenceExample"}
        Whether there is one record per patch ("Example") or per pixel ("SequenceExample").
    bands : tuple of BandSpec
        The bands in the records.
    coords : mapping from dimension to ndarray
        Coordinates of the extra dimensions of the bands.
    default_value : float
        The user's value for masked pixels. ``BandSpec.default`` is the value that the records of a band
        contain.
    ragged : bool
        Whether masked steps were omitted from the records.
    kernel : Size, optional
        The kernel of the export. This and all following fields are missing in files of version 0.1.0.
    grid : PatchGrid, optional
        The patch grid with its margin, including patches that were dropped.
    shards : tuple of ManifestShard
        The TFRecord files, in order.
    options : mapping
        The options of the export, by name; for information only.
    key : str
        A hash of the Dask names of the inputs and of the options. Two exports with the same content have the
        same key if their inputs have the same Dask names; changes to a file with the same name are not
        detected. An equal key is necessary for equal content, not sufficient.
    version : str
        The version of xee_tf that wrote the manifest.
    identity : mapping, optional
        What the export was written from, if it can be resumed.
    statistics : mapping from band to BandStatistics, optional
        Statistics of the pixels in the records, without margins. Missing in files of older versions, and if
        they were not taken.

    Examples
    --------
    >>> import json
    >>> from xee_tf.sidecars import manifest_of
    >>> bands = (BandSpec("ndvi", ("orbit",), (2,)),)
    >>> coords = {"orbit": np.array(["asc", "desc"])}
    >>> manifest = ImageManifest("Example", bands, coords, kernel=Size(x=3, y=3))
    >>> again = manifest_of(json.loads(manifest.text()))
    >>> again.bands[0].dims, again.coords["orbit"], again.kernel
    (('orbit',), array(['asc', 'desc'], dtype='<U4'), Size(x=3, y=3))
    """

    record: Record
    bands: tuple[BandSpec, ...]
    coords: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)
    default_value: float = 0
    ragged: bool = False
    kernel: Size | None = None
    grid: PatchGrid | None = None
    shards: tuple[ManifestShard, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    key: str = ""
    version: str = __version__
    identity: Mapping[str, Any] | None = None
    statistics: Mapping[str, BandStatistics] | None = None

    @property
    def patches(self) -> npt.NDArray[np.int64] | None:
        """The patch index of each record (or group of records), if patches were dropped."""
        numbers = [shard.patches for shard in self.shards if shard.patches is not None]
        return np.concatenate(numbers) if numbers else None

    def text(self) -> str:
        """Return the JSON of the file."""
        found = self.statistics or {}
        document: dict[str, Any] = {
            **_head("image", self.version),
            "key": self.key,
            "record": self.record,
            "ragged": self.ragged,
            "defaultValue": write_number(float(self.default_value)),
            "kernel": None if self.kernel is None else list(self.kernel.xy),
            "grid": None if self.grid is None else grid_document(self.grid),
            "bands": [
                band_document(band)
                | ({} if band.name not in found else {"statistics": statistics_document(found[band.name])})
                for band in self.bands
            ],
            "coords": {
                dim: coordinate
                for dim, values in self.coords.items()
                if (coordinate := coordinate_document(values)) is not None
            },
            "options": dict(self.options),
            "shards": [shard.document() for shard in self.shards],
        }
        if self.identity is not None:
            document["identity"] = self.identity
        return render(document)

    def _summary(self) -> Summary:
        names = [f"{band.name} ({', '.join(band.dims)})" if band.dims else band.name for band in self.bands]
        rows = [
            *(grid_rows(self.grid) if self.grid is not None else []),
            ("bands", f"{len(names):,}: {abbreviated(names)}"),
            *((dim, counted(length, "step")) for dim, length in dim_lengths(self.bands).items()),
            ("records", self.record),
            *_written(self.shards, self.version),
        ]
        values = Listing(
            "values", statistics_cells(self.statistics or {}), most=5, noun="band", is_whole=True
        )
        picture = None if self.grid is None else grid_picture(self.grid)
        return Summary("ImageManifest", "", rows, listings=[values, _files(self.shards)], picture=picture)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ImageManifest:
        """Create a manifest from the parsed output of `text`; raise TypeError or ValueError if invalid."""
        bands = tuple(band_of(band) for band in document["bands"])
        check_band_positions(bands)
        lengths = dim_lengths(bands)
        coords = {}
        for dim, coordinate in document.get("coords", {}).items():
            if len(coordinate["values"]) != lengths.get(dim):
                raise ValueError(f"the coordinate {dim!r} does not have the length of its dimension")
            coords[dim] = read_coordinate(coordinate)
        kernel, grid = document.get("kernel"), document.get("grid")
        described = [band.get("statistics") for band in document["bands"]]
        statistics = None
        if None not in described:
            statistics = {band.name: statistics_of(each) for band, each in zip(bands, described, strict=True)}
        size = None if kernel is None else read_size(kernel, "kernel")
        record = document["record"]
        if record not in get_args(Record):
            raise ValueError(f"the record type {record!r} is unknown")
        return cls(
            record=record,
            bands=bands,
            coords=coords,
            default_value=read_number(document.get("defaultValue", 0)),
            ragged=bool(document.get("ragged", False)),
            kernel=size,
            grid=None if grid is None else grid_of(grid, size),
            shards=tuple(ManifestShard.of(shard) for shard in document.get("shards", ())),
            options=dict(document.get("options", {})),
            key=str(document.get("key", "")),
            version=str(document.get("version", "")),
            identity=document.get("identity"),
            statistics=statistics,
        )


@dataclass(frozen=True)
class TableColumn:
    """A column of a table: name, kind of list, and shape of its values.

    Records store the values of array-valued columns flattened; the shape of scalar values is empty.
    """

    name: str
    kind: Kind = "float"
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of values per row."""
        return math.prod(self.shape)

    @property
    def feature(self) -> Feature:
        """The record feature of the column."""
        if self.kind == "bytes":
            return Feature.strings(self.name)
        return Feature.stored(self.name, self.kind, self.size)

    def __str__(self) -> str:
        if self.kind == "bytes":
            return "strings"
        return f"arrays of shape {self.shape}" if self.shape else "numbers"


@dataclass(frozen=True)
class TablePatches:
    """The patches of a table, which are the last two axes of the columns that have at least two.

    Parameters
    ----------
    size : Size
        Width and height.
    default : float, optional
        The value of pixels that are masked or outside the raster; None if an older version wrote the table.
    """

    size: Size
    default: float | None = None


@dataclass(frozen=True)
class SampleCounts:
    """What became of the pixels from which the rows of a table were sampled.

    Parameters
    ----------
    pixels : int
        Number of pixels, before any was omitted.
    dropped : int
        Number of masked pixels that were omitted.
    short : tuple of (str, int, int)
        Some classes with fewer pixels than were asked for: the class, or an empty text without classes; how
        many pixels were asked for; and how many there are.
    classes_short : int
        Number of all classes with fewer pixels.

    Examples
    --------
    >>> counts = SampleCounts(9, 2, (("3", 5, 1), ("7", 5, 0)), 2) + SampleCounts(0, 1)
    >>> counts.short_text
    'Classes have fewer pixels than n asks for, so all of these were selected: 3 (1 of 5), 7 (0 of 5)'
    """

    pixels: int = 0
    dropped: int = 0
    short: tuple[tuple[str, int, int], ...] = ()
    classes_short: int = 0

    def __add__(self, other: SampleCounts) -> SampleCounts:
        return SampleCounts(
            self.pixels + other.pixels,
            self.dropped + other.dropped,
            self.short + other.short,
            self.classes_short + other.classes_short,
        )

    @property
    def short_text(self) -> str:
        """How many pixels were asked for and are available; empty if there are enough."""
        if not self.short:
            return ""
        if not self.short[0][0]:
            _, asked, available = self.short[0]
            return f"n={asked:,} pixels were asked for, but there are only {available:,}: all were selected"
        shown = [f"{name} ({available:,} of {asked:,})" for name, asked, available in self.short]
        more = self.classes_short - len(shown)
        return (
            "Classes have fewer pixels than n asks for, so all of these were selected: "
            f"{', '.join(shown)}{f' and {more:,} more' if more else ''}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class TableManifest(Summarized):
    """The manifest of a table export.

    Parameters
    ----------
    columns : tuple of TableColumn
        The columns, in the order of the table.
    shards : tuple of ManifestShard
        The TFRecord file.
    version : str
        The version of xee_tf that wrote the manifest.
    counts : SampleCounts
        Numbers of the pixels from which rows were sampled.
    rounded : tuple of str
        Columns with integers that were rounded.
    identity : mapping, optional
        What the table was written from, if it can be resumed.
    patches : TablePatches, optional
        The patches of a table of patches around points.

    Examples
    --------
    >>> import json
    >>> from xee_tf.sidecars import manifest_of
    >>> manifest = TableManifest((TableColumn("patch", "float", (16, 16)),))
    >>> manifest_of(json.loads(manifest.text())).shapes
    {'patch': (16, 16)}
    """

    columns: tuple[TableColumn, ...]
    shards: tuple[ManifestShard, ...] = ()
    version: str = __version__
    counts: SampleCounts = field(default_factory=SampleCounts)
    rounded: tuple[str, ...] = ()
    identity: Mapping[str, Any] | None = None
    patches: TablePatches | None = None

    @property
    def patch_columns(self) -> frozenset[str]:
        """Names of the columns that are patches."""
        if self.patches is None:
            return frozenset()
        sides = self.patches.size.shape
        return frozenset(column.name for column in self.columns if column.shape[-2:] == sides)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the array-valued columns."""
        return {column.name: column.shape for column in self.columns if column.shape}

    def text(self) -> str:
        """Return the JSON of the file."""
        document = {
            **_head("table", self.version),
            "columns": [
                {"name": column.name, "kind": column.kind, "shape": list(column.shape)}
                for column in self.columns
            ],
            "shards": [shard.document() for shard in self.shards],
        }
        if self.identity is not None:
            counts = self.counts
            document |= {"dropped": counts.dropped, "rounded": list(self.rounded), "identity": self.identity}
            if counts.pixels:
                document["pixels"] = counts.pixels
            if counts.short:
                document |= {
                    "short": [list(each) for each in counts.short],
                    "classesShort": counts.classes_short,
                }
        if self.patches is not None:
            document["patchDimensions"] = list(self.patches.size.xy)
            if self.patches.default is not None:
                document["defaultValue"] = write_number(self.patches.default)
        return render(document)

    def _summary(self) -> Summary:
        rows = _written(self.shards, self.version)
        if self.patches is not None:
            rows.append(("patches", f"{by(*self.patches.size.xy)} px"))
        cells = [(column.name, str(column)) for column in self.columns]
        columns = Listing("columns", cells, most=12, is_whole=True)
        return Summary("TableManifest", "", rows, listings=[columns, _files(self.shards)])

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> TableManifest:
        """Create a manifest from the parsed output of `text`; see `ImageManifest.of`."""
        columns = []
        for column in document["columns"]:
            kind = column["kind"]
            if kind not in get_args(Kind):
                raise ValueError(f"a column has the unknown kind {kind!r}")
            shape = tuple(read_count(length, "the shape of a column") for length in column.get("shape", ()))
            columns.append(TableColumn(read_text(column["name"], "the name of a column"), kind, shape))
        shards = tuple(ManifestShard.of(shard) for shard in document.get("shards", ()))
        patches = None
        if "patchDimensions" in document:
            default = document.get("defaultValue")
            patches = TablePatches(
                read_size(document["patchDimensions"], "patchDimensions"),
                None if default is None else read_number(default),
            )
        return cls(
            tuple(columns),
            shards,
            str(document.get("version", "")),
            SampleCounts(
                pixels=int(document.get("pixels", 0)),
                dropped=int(document.get("dropped", 0)),
                short=tuple((str(kind), int(n), int(found)) for kind, n, found in document.get("short", ())),
                classes_short=int(document.get("classesShort", 0)),
            ),
            tuple(map(str, document.get("rounded", ()))),
            document.get("identity"),
            patches,
        )


Manifest = ImageManifest | TableManifest


def _head(kind: str, version: str) -> dict[str, Any]:
    return {"format": f"xee_tf {kind}", "formatVersion": FORMAT_VERSION, "version": version}


def _written(shards: Sequence[ManifestShard], version: str) -> Facts:
    size = format_bytes(sum(shard.file.bytes for shard in shards))
    held = counted(sum(shard.file.records for shard in shards), "record")
    return [
        ("content", f"{held} of {size} in {counted(len(shards), 'shard')}"),
        ("written by", f"xee_tf {version}"),
    ]


def _files(shards: Sequence[ManifestShard]) -> Listing:
    cells = [
        (shard.file.path, counted(shard.file.records, "record"), format_bytes(shard.file.bytes))
        for shard in shards
    ]
    return Listing("files", cells, most=5)
