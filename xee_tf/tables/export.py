"""Exporting a table: row groups encoded in parallel, parts joined into one file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xee_tf.errors import DestinationError, DestinationExistsError, OptionError, warn
from xee_tf.export.encode import Part, Run
from xee_tf.export.options import REPLACED, TABLE_FORMATS
from xee_tf.export.result import ShardInfo
from xee_tf.graph import Delayed, Graph, add_task, add_value, run_graph
from xee_tf.options import IfExists, Spelling, spelled
from xee_tf.records.example import Encoded
from xee_tf.records.framing import footers, run_crc
from xee_tf.shards.clear import clear
from xee_tf.shards.members import compress_member
from xee_tf.shards.write import write_shard
from xee_tf.sidecars import TableManifest
from xee_tf.sidecars.names import TABLE, export_prefix, manifest_location, table_location
from xee_tf.storage import Location, PathLike
from xee_tf.tables.encode import encode_rows
from xee_tf.tables.schema import Column, Rows
from xee_tf.tables.sources import Geometry, LazyTable, Table, read_table

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "TableResult",
    "check_target",
    "export_table",
    "write_table",
]

_SPELLING = Spelling(
    "options of a table",
    aliases={"fileNamePrefix": "path", "collection": "table"},
    replaced=REPLACED
    | {
        "formatOptions": "they are of images; leave it out",
        "maxVertices": "geometries are written as points; leave it out",
        "ingestionTimeParameters": "it is an option of feature views; leave it out",
        "image": "a raster is exported with export_image, and sampled with sample_table",
    },
    formats=TABLE_FORMATS,
)
"""How the options of a table export are written: ``ee.batch.Export.table`` and ours."""

_TASK_BYTES = 16 << 20  # of records encoded at a time
_MEMBER_BYTES = 1 << 20  # of records in a gzip member: what must be inflated to read one of them


@dataclass(frozen=True)
class TableResult:
    """What a table export wrote.

    Parameters
    ----------
    file : ShardInfo
        The file: path, records, bytes, CRC-32C.
    columns : tuple of Column
        Name, kind ("float" or "bytes") and shape of each column. Records do not hold shapes.
    manifest : Location
        What the records do not hold: shapes and checksums.
    rounded : tuple of str
        Columns with whole numbers that float32 cannot hold exactly.
    dropped : int
        Masked pixels that `xee_tf.sample_table` left out.
    """

    file: ShardInfo
    columns: tuple[Column, ...]
    manifest: Location
    rounded: tuple[str, ...] = ()
    dropped: int = 0

    def __repr__(self) -> str:
        from xee_tf.display.text import table_text

        return table_text(self)

    def _repr_html_(self) -> str:
        from xee_tf.display.html import table_html

        return table_html(self)

    @property
    def path(self) -> str:
        """The file."""
        return self.file.path

    @property
    def records(self) -> int:
        """Rows written."""
        return self.file.records

    @property
    def bytes(self) -> int:
        """Size of the file."""
        return self.file.bytes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the array-valued columns, as `xee_tf.open_table` takes them."""
        return {column.name: column.shape for column in self.columns if column.shape}

    def feature_spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """What ``tf.io.parse_single_example`` needs; single values have shape [1], as in the guide."""
        import tensorflow as tf

        dtypes = {"float": tf.float32, "bytes": tf.string}
        return {
            column.name: tf.io.FixedLenFeature(list(column.shape) or [1], dtypes[column.kind])
            for column in self.columns
        }


@spelled(_SPELLING)
def export_table(
    table: Table,
    path: PathLike,
    selectors: Sequence[str] | None = None,
    geometry: Geometry | None = "lonlat",
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Export a table as one gzipped TFRecord, an Example for each row, as Earth Engine's ``Export.table``.

    Writes ``<path>.tfrecord.gz``, and ``<path>-table.tfexport`` with shapes and checksums. Numbers become
    float lists of one value, strings bytes lists (UTF-8), array-valued columns flattened float lists.
    Partitions of a lazy table are encoded in parallel, put aside on disk, and joined in the order of the
    rows.

    Parameters
    ----------
    table : DataFrame, GeoDataFrame, Dask DataFrame or Dataset
        A column for each feature; the index is left out (``reset_index()`` makes it a column). Of a Dataset,
        variables along its one dimension of rows, and those with further ones as array-valued columns.
        float32 is all that a record holds: integers beyond 2**24 are rounded, with a warning. Missing numbers
        are written as NaN, missing strings as empty ones. A chunked Dataset or a Dask frame is never in
        memory as a whole. (Dask itself makes texts of the arrays in a frame, unless the frame was made with
        ``dask.config.set({"dataframe.convert-string": False})``.)
    path : str or path-like
        Prefix of the file: a local path or any URL that fsspec knows.
    selectors : sequence of str, optional
        Columns to write, in this order, and no others. ``"longitude"`` and ``"latitude"`` can be among them.
        Default: all of them.
    geometry : {"lonlat", None}
        "lonlat": the points of a GeoDataFrame become the columns ``longitude`` and ``latitude`` (EPSG:4326,
        whatever the frame's CRS is, and longitudes in -180..180). None: geometries are left out.
    if_exists : {"error", "overwrite"}
        What to do where the file exists.
    progress : bool
        Show a bar.
    compute : bool
        If false, return a Delayed and write nothing. It checks `if_exists` again when it is computed.
    storage_options : mapping
        Handed to fsspec.

    Returns
    -------
    TableResult or Delayed

    Raises
    ------
    OptionError
        If a selector is unknown, column names are not unique, a dtype cannot be written, rows differ in kind
        or shape, or a row has no point; the first such row is named. The file is then not written.
    GeoreferenceError
        If points have no CRS.
    DestinationExistsError
        If the file exists and `if_exists` is "error".

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2], "landcover": [1, 3], "name": ["oak", "fir"]})
    >>> result = export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> result.records, result.path.rsplit("/")[-1]
    (2, 'sites.tfrecord.gz')
    """
    target = check_target(path, if_exists, storage_options)
    source = read_table(table, selectors, geometry)
    if isinstance(source, Rows):
        if not len(source):
            raise _no_rows()
        source = _cut(source)
    return write_table(source, target, if_exists=if_exists, progress=progress, compute=compute)


def check_target(path: PathLike, if_exists: IfExists, storage_options: Mapping[str, Any] | None) -> Location:
    """The file to write, if it can be.

    Raises
    ------
    OptionError, DestinationError
        If `if_exists` is unknown, the file exists, or there is no permission to write it.
    """
    target = table_location(export_prefix(path, storage_options, suffix=TABLE, example="table"))
    target.require_free(if_exists)
    manifest_location(target).require_free("overwrite")  # no folder is in its place
    target.require_writable()
    return target


def write_table(
    source: LazyTable, target: Location, *, if_exists: IfExists, progress: bool, compute: bool
) -> TableResult | Delayed:
    """Write the row groups of a table to one file, or give the Delayed that does."""
    delayed, folder = _graph(source, target, if_exists == "overwrite")
    if not compute:
        return delayed
    try:
        result: TableResult = run_graph(delayed, progress)
    except BaseException:
        clear(folder)
        raise
    if result.rounded:
        warn(
            f"The columns {list(result.rounded)} hold whole numbers that float32 cannot: they were rounded. "
            f"Only those up to {2**24:,} are exact. Were they meant as names, write strings: "
            f"table[{result.rounded[0]!r}].astype(str)."
        )
    return result


@dataclass(frozen=True)
class _TablePart:
    """What one row group has put aside."""

    part: Part
    records: int
    columns: tuple[Column, ...]
    rounded: tuple[str, ...]
    dropped: int


@dataclass(frozen=True)
class _PartWriter:
    """Turns row groups into parts; small and picklable, it travels in every task."""

    read: Any
    folder: Location

    def __call__(self, number: int, group: Any) -> _TablePart:
        rows: Rows = self.read(group, number)
        location = self.folder.child(f"00000-{number:06d}.part")
        records: list[int] = []
        sizes: list[int] = []
        crcs: list[int] = []
        with location.open("wb") as file:
            for start, stop in _spans(rows):
                encoded = encode_rows(rows[start:stop])
                ends = footers(encoded.buffer, encoded.offsets[1:])
                for first, last in _members(encoded):
                    member = compress_member(encoded.buffer[encoded.offsets[first] : encoded.offsets[last]])
                    file.write(member)
                    records.append(last - first)
                    sizes.append(len(member))
                    crcs.append(run_crc(ends[first:last]))
        part = Part(0, location, (Run(number, tuple(records), tuple(sizes), tuple(crcs), (), ()),))
        return _TablePart(part, len(rows), rows.columns, rows.rounded, rows.dropped)


def _spans(rows: Rows) -> Iterator[tuple[int, int]]:
    """Rows that are encoded at a time."""
    count = len(rows)
    step = math.ceil(count / max(1, rows.nbytes // _TASK_BYTES)) if count else 1
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _members(encoded: Encoded) -> Iterator[tuple[int, int]]:
    """Records that make a gzip member."""
    first, count = 0, len(encoded)
    while first < count:
        full = int(np.searchsorted(encoded.offsets, encoded.offsets[first] + _MEMBER_BYTES, "right")) - 1
        last = min(max(full, first + 1), count)
        yield first, last
        first = last


def _cut(rows: Rows) -> LazyTable:
    """A table in memory as row groups."""
    name = f"table-{uuid.uuid4().hex[:12]}"
    graph = Graph()
    table = add_value(graph.tasks, name, rows)
    groups = [
        add_task(graph.tasks, (f"{name}-rows", number), Rows.__getitem__, table, slice(start, stop))
        for number, (start, stop) in enumerate(_spans(rows))
    ]
    return LazyTable(groups, graph)


def _graph(source: LazyTable, target: Location, overwrite: bool) -> tuple[Delayed, Location]:
    """The Delayed that writes a table, and the folder in which it works."""
    run = uuid.uuid4().hex[:12]
    prefix = target.name.removesuffix(TABLE)
    folder = target.parent.child(f".{prefix}-{run}.parts")
    writer = _PartWriter(source.read, folder)
    tasks = source.graph.tasks
    parts = [
        add_task(tasks, (f"table-encode-{run}", number), writer, number, group)
        for number, group in enumerate(source.groups)
    ]
    result = add_task(tasks, f"table-commit-{run}", _commit, folder, target, overwrite, parts)
    return source.graph.delayed(f"table-export-{run}", result), folder


def _commit(folder: Location, target: Location, overwrite: bool, parts: Sequence[_TablePart]) -> TableResult:
    """Check that the parts agree, join them, and put the file in its place, then its manifest."""
    from xee_tf import __version__

    columns = _agreed(parts)
    written = write_shard(folder, 0, 0, True, [[part.part] for part in parts])
    source = folder.child("00000.shard")
    manifest = manifest_location(target)
    if source.exists():
        if not overwrite and target.exists():  # another export may have come first since the graph was made
            folder.remove(recursive=True)
            raise DestinationExistsError(
                f"{target} exists: it was written after this export was planned, and is left as it is. "
                "Choose another name, or replace it with if_exists='overwrite'."
            )
        if manifest.exists():  # it describes the file that is replaced
            manifest.remove()
        source.move(target)
    elif not (target.exists() and target.size() == written.bytes):
        raise DestinationError(f"The records have gone from {folder}; export again.")
    described = TableManifest(columns, (written.in_manifest(target.name, patches=False),), __version__)
    manifest.write_bytes(described.text().encode())
    with suppress(FileNotFoundError):
        folder.remove(recursive=True)
    rounded = {name for part in parts for name in part.rounded}
    return TableResult(
        ShardInfo(target.url, written.records, written.bytes, written.crc32c),
        columns,
        manifest,
        tuple(column.name for column in columns if column.name in rounded),
        sum(part.dropped for part in parts),
    )


def _agreed(parts: Sequence[_TablePart]) -> tuple[Column, ...]:
    """The columns of all parts, which must be the same."""
    expected: tuple[Column, ...] | None = None
    row = 0
    for number, part in enumerate(parts):
        if part.records and expected is None:
            expected = part.columns
        if part.records and expected is not None:
            for before, found in zip(expected, part.columns, strict=True):
                if found != before:
                    raise OptionError(
                        f"Column {found.name!r}: row {row} (the first of partition {number}) holds {found}, "
                        f"the rows before it {before}. All rows of a column must be of one kind and shape."
                    )
        row += part.records
    if expected is None:
        raise _no_rows()
    return expected


def _no_rows() -> OptionError:
    return OptionError("The table has no rows: there is nothing to export.")
