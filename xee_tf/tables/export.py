"""Exporting a table: row groups encoded in parallel, parts joined into one file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dask.utils import format_bytes

from xee_tf.display import Listing, Summarised, Summary, counted
from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import OptionError, warn
from xee_tf.extras import extra
from xee_tf.graph import Delayed, Graph, add_task, add_value, run_graph
from xee_tf.options import IfExists, check_flags, spelled
from xee_tf.shards import (
    TABLE_MEMBER,
    OneFile,
    Part,
    PartStore,
    Replaced,
    ShardStore,
    aborted_on_failure,
    member_edges,
    pack_run,
)
from xee_tf.sidecars import (
    TABLE,
    ShardInfo,
    TableColumn,
    TableManifest,
    export_prefix,
    manifest_location,
    table_location,
)
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.tables.options import TABLE_SPELLING
from xee_tf.tables.rows import Rows
from xee_tf.tables.sources import Geometry, LazyTable, Table, read_table

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = [
    "TableResult",
    "check_target",
    "export_table",
    "write_table",
]

_TASK_BYTES = 16 << 20  # of records encoded at a time


@dataclass(frozen=True, repr=False)
class TableResult(Summarised):
    """What a table export wrote.

    Parameters
    ----------
    file : ShardInfo
        The file: path, records, bytes, CRC-32C.
    columns : tuple of TableColumn
        Name, kind ("float" or "bytes") and shape of each column. Records do not hold shapes.
    manifest : Location
        What the records do not hold: shapes and checksums.
    rounded : tuple of str
        Columns with whole numbers that float32 cannot hold exactly.
    dropped : int
        Masked pixels that `xee_tf.sample_table` left out.
    """

    file: ShardInfo
    columns: tuple[TableColumn, ...]
    manifest: Location
    rounded: tuple[str, ...] = ()
    dropped: int = 0

    def _summary(self) -> Summary:
        rows = [
            ("rows", f"{self.records:,} of {counted(len(self.columns), 'column')}"),
            ("bytes", f"{format_bytes(self.bytes)}, crc32c {self.file.crc32c:08x}"),
        ]
        if self.rounded:
            rows.append(("rounded", f"{', '.join(self.rounded)}: whole numbers that float32 cannot hold"))
        if self.dropped:
            rows.append(("dropped", counted(self.dropped, "masked pixel")))
        columns = Listing("columns", [_cells(column) for column in self.columns], most=12)
        return Summary("TableResult", self.path, rows, listing=columns)

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
        with extra("tensorflow", "feature_spec"):
            import tensorflow as tf

        dtypes = {"float": tf.float32, "bytes": tf.string}
        return {
            column.name: tf.io.FixedLenFeature(list(column.shape) or [1], dtypes[column.kind])
            for column in self.columns
        }


def _cells(column: TableColumn) -> tuple[str, str]:
    """Name of a column, and what a record holds of it."""
    if not column.shape:
        return column.name, column.kind
    shape = f" as {' × '.join(map(str, column.shape))}" if len(column.shape) > 1 else ""
    return column.name, f"{column.kind}, {counted(column.size, 'value')}{shape}"


@spelled(TABLE_SPELLING)
def export_table(
    table: Table,
    destination: PathLike,
    columns: Sequence[str] | None = None,
    geometry: Geometry | None = "lonlat",
    *,
    if_exists: IfExists = "error",
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Export a table as one gzipped TFRecord, an Example for each row, as Earth Engine's ``Export.table``.

    Writes ``<destination>.tfrecord.gz``, and ``<destination>-table.tfexport`` with shapes and checksums.
    Numbers become float lists of one value, strings bytes lists (UTF-8), array-valued columns flattened float
    lists. Partitions of a lazy table are encoded in parallel, put aside on disk, and joined in the order of
    the rows.

    Parameters
    ----------
    table : DataFrame, GeoDataFrame, Dask DataFrame or Dataset
        A column for each feature; the index is left out (``reset_index()`` makes it a column). Of a Dataset,
        variables along its one dimension of rows, and those with further ones as array-valued columns.
        float32 is all that a record holds: integers beyond 2**24 are rounded, with a warning. Missing numbers
        are written as NaN, missing strings as empty ones. A chunked Dataset or a Dask frame is never in
        memory as a whole. (Dask itself makes texts of the arrays in a frame, unless the frame was made with
        ``dask.config.set({"dataframe.convert-string": False})``.)
    destination : str or path-like
        Prefix of the file: a local path or any URL that fsspec knows.
    columns : sequence of str, optional
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
    check_flags(progress=progress, compute=compute)
    target = check_target(destination, if_exists, storage_options)
    source = read_table(table, columns, geometry)
    if isinstance(source, Rows):
        if not len(source):
            raise _no_rows()
        source = _cut(source)
    return write_table(source, target, if_exists=if_exists, progress=progress, compute=compute)


def check_target(
    destination: PathLike, if_exists: IfExists, storage_options: Mapping[str, Any] | None
) -> Location:
    """The file to write, if it can be."""
    target = table_location(export_prefix(destination, storage_options, suffix=TABLE, example="table"))
    require_free(target, if_exists)
    require_free(manifest_location(target), "overwrite")  # no folder is in its place
    require_writable(target)
    return target


def write_table(
    source: LazyTable, target: Location, *, if_exists: IfExists, progress: bool, compute: bool
) -> TableResult | Delayed:
    """Write the row groups of a table to one file, or give the Delayed that does."""
    store = PartStore.begin(OneFile(target, compressed=True))
    delayed = _graph(source, store, if_exists == "overwrite")
    if not compute:
        return delayed
    with aborted_on_failure([store]):
        result: TableResult = run_graph(delayed, progress)
    if result.rounded:
        warn(
            f"The columns {list(result.rounded)} hold whole numbers that float32 cannot: they were rounded. "
            f"Only those up to {FLOAT32_EXACT:,} are exact. Were they meant as names, write strings: "
            f"table[{result.rounded[0]!r}].astype(str)."
        )
    return result


@dataclass(frozen=True)
class _TablePart:
    """What one row group has put aside."""

    part: Part
    records: int
    columns: tuple[TableColumn, ...]
    rounded: tuple[str, ...]
    dropped: int


def _write_part(read: Callable[[Any, int], Rows], store: ShardStore, number: int, group: Any) -> _TablePart:
    """Encode a row group and put it aside."""
    rows = read(group, number)
    encoded = (rows[start:stop].encode() for start, stop in _spans(rows))
    compressed = store.names.compressed
    runs = (
        pack_run(each, member_edges(each.offsets, TABLE_MEMBER), compressed=compressed, first=number)
        for each in encoded
    )
    part = store.put(0, f"{number:06d}", runs)
    return _TablePart(part, len(rows), rows.columns, rows.rounded, rows.dropped)


def _spans(rows: Rows) -> Iterator[tuple[int, int]]:
    """Rows that are encoded at a time."""
    count = len(rows)
    step = math.ceil(count / max(1, rows.nbytes // _TASK_BYTES)) if count else 1
    for start in range(0, count, step):
        yield start, min(start + step, count)


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


def _graph(source: LazyTable, store: ShardStore, overwrite: bool) -> Delayed:
    """The Delayed that writes a table."""
    run = uuid.uuid4().hex[:12]
    tasks = source.graph.tasks
    parts = [
        add_task(tasks, (f"table-encode-{run}", number), _write_part, source.read, store, number, group)
        for number, group in enumerate(source.groups)
    ]
    result = add_task(tasks, f"table-commit-{run}", _commit, store, overwrite, parts)
    return source.graph.delayed(f"table-export-{run}", result)


def _commit(store: ShardStore, overwrite: bool, parts: Sequence[_TablePart]) -> TableResult:
    """Check that the parts agree, join them, and put the file in its place, then its manifest."""
    columns = _agreed(parts)
    written = store.join(0, 0, [[part.part] for part in parts])
    target = store.names.shard(0)
    manifest = manifest_location(target)
    described = TableManifest(columns, (written.in_manifest(target.name, patches=False),))
    refusal = None
    if not overwrite and target.exists():  # another export may have come first since the graph was made
        refusal = (
            f"{target} exists: it was written after this export was planned, and is left as it is. "
            "Choose another name, or replace it with if_exists='overwrite'."
        )
    earlier = [file for file in (manifest, target) if file.exists()]
    [file] = store.commit(
        [written], [(manifest, described.text().encode())], replaced=Replaced(earlier, refusal)
    )
    rounded = {name for part in parts for name in part.rounded}
    return TableResult(
        file,
        columns,
        manifest,
        tuple(column.name for column in columns if column.name in rounded),
        sum(part.dropped for part in parts),
    )


def _agreed(parts: Sequence[_TablePart]) -> tuple[TableColumn, ...]:
    """The columns of all parts, which must be the same."""
    expected: tuple[TableColumn, ...] | None = None
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
