"""The manifest: one JSON file beside every export that holds what Earth Engine's files cannot.

``<prefix>-image.tfexport`` lies beside an image, ``<prefix>-table.tfexport`` beside a table. With it readers
infer nothing, and `xee_tf.verify` checks every byte. Other programs can ignore it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.geometry import PatchGrid, Size
from xee_tf.records import Feature, Kind
from xee_tf.sidecars.bands import BandSpec, Record, dim_lengths
from xee_tf.sidecars.coordinates import coordinate_document, read_coordinate
from xee_tf.sidecars.documents import (
    ManifestShard,
    band_document,
    band_of,
    check_places,
    grid_document,
    grid_of,
)
from xee_tf.sidecars.packing import read_count, read_number, read_size, read_text, render, write_number
from xee_tf.version import __version__

__all__ = [
    "FORMAT_VERSION",
    "ImageManifest",
    "Manifest",
    "TableColumn",
    "TableManifest",
]

FORMAT_VERSION = "1.0"  # readers refuse a larger first number and ignore keys that they do not know


@dataclass(frozen=True, eq=False)
class ImageManifest:
    """The facts about the files of an image export.

    Parameters
    ----------
    record : {"Example", "SequenceExample"}
        A record for each patch, or for each pixel.
    bands : tuple of BandSpec
        The bands in the records.
    coords : mapping from dimension to ndarray
        Coordinates of the bands' further dimensions.
    default_value : float
        The value that the user gives in place of masked ones. What stands in the records of a band is
        ``BandSpec.default``.
    ragged : bool
        Whether masked steps were left out of the records.
    kernel : Size, optional
        The kernel of the export. None in files of version 0.1.0, as are all of the following.
    grid : PatchGrid, optional
        The patches, those that were dropped included, with their margin.
    shards : tuple of ManifestShard
        The TFRecord files, in order.
    options : mapping
        The options of the export, by name; for people to read.
    key : str
        A hash of the names that Dask gives to the inputs, and of the options. Two exports of the same
        content have the same key if their inputs have the same names; files that changed under
        the same name are not noticed. An equal key is necessary for equal content, not sufficient.
    version : str
        The version of xee_tf that wrote it.

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

    @property
    def patches(self) -> npt.NDArray[np.int64] | None:
        """The number of the patch in every record (in every group of records), where patches were dropped."""
        numbers = [shard.patches for shard in self.shards if shard.patches is not None]
        return np.concatenate(numbers) if numbers else None

    def text(self) -> str:
        """The JSON of the file."""
        document: dict[str, Any] = {
            **_head("image", self.version),
            "key": self.key,
            "record": self.record,
            "ragged": self.ragged,
            "defaultValue": write_number(float(self.default_value)),
            "kernel": None if self.kernel is None else list(self.kernel.xy),
            "grid": None if self.grid is None else grid_document(self.grid),
            "bands": [band_document(band) for band in self.bands],
            "coords": {
                dim: coordinate
                for dim, values in self.coords.items()
                if (coordinate := coordinate_document(values)) is not None
            },
            "options": dict(self.options),
            "shards": [shard.document() for shard in self.shards],
        }
        return render(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> ImageManifest:
        """The manifest that `text` has written; a TypeError or ValueError says what is wrong with it."""
        bands = tuple(band_of(band) for band in document["bands"])
        check_places(bands)
        lengths = dim_lengths(bands)
        coords = {}
        for dim, coordinate in document.get("coords", {}).items():
            if len(coordinate["values"]) != lengths.get(dim):
                raise ValueError(f"the coordinate {dim!r} does not have the length of its dimension")
            coords[dim] = read_coordinate(coordinate)
        kernel, grid = document.get("kernel"), document.get("grid")
        size = None if kernel is None else read_size(kernel, "kernel")
        record = document["record"]
        if record not in get_args(Record):
            raise ValueError(f"the record is {record!r}")
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
        )


@dataclass(frozen=True)
class TableColumn:
    """One column of a table: its name, the kind of its list, and the shape of its values.

    Records hold the values of array-valued columns flattened; the shape of single values is empty.
    """

    name: str
    kind: Kind = "float"
    shape: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Values a row."""
        return math.prod(self.shape)

    @property
    def feature(self) -> Feature:
        """What a record holds of the column."""
        if self.kind == "bytes":
            return Feature.strings(self.name)
        return Feature.stored(self.name, self.kind, self.size)

    def __str__(self) -> str:
        if self.kind == "bytes":
            return "strings"
        return f"arrays of shape {self.shape}" if self.shape else "numbers"


@dataclass(frozen=True, eq=False)
class TableManifest:
    """The facts about the file of a table export.

    Parameters
    ----------
    columns : tuple of TableColumn
        In their order in the table.
    shards : tuple of ManifestShard
        The TFRecord file.
    version : str
        The version of xee_tf that wrote it.

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

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the array-valued columns."""
        return {column.name: column.shape for column in self.columns if column.shape}

    def text(self) -> str:
        """The JSON of the file."""
        document = {
            **_head("table", self.version),
            "columns": [
                {"name": column.name, "kind": column.kind, "shape": list(column.shape)}
                for column in self.columns
            ],
            "shards": [shard.document() for shard in self.shards],
        }
        return render(document)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> TableManifest:
        """The manifest that `text` has written; see `ImageManifest.of`."""
        columns = []
        for column in document["columns"]:
            kind = column["kind"]
            if kind not in get_args(Kind):
                raise ValueError(f"a column is of the kind {kind!r}")
            shape = tuple(read_count(length, "the shape of a column") for length in column.get("shape", ()))
            columns.append(TableColumn(read_text(column["name"], "the name of a column"), kind, shape))
        shards = tuple(ManifestShard.of(shard) for shard in document.get("shards", ()))
        return cls(tuple(columns), shards, str(document.get("version", "")))


Manifest = ImageManifest | TableManifest


def _head(kind: str, version: str) -> dict[str, Any]:
    return {"format": f"xee_tf {kind}", "formatVersion": FORMAT_VERSION, "version": version}
