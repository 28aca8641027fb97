"""Export a table: encode row groups in parallel and join the parts into one file."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from dask.utils import format_bytes

from xee_tf.display import Listing, Summarized, Summary, counted, quoted
from xee_tf.dtypes import FLOAT32_EXACT
from xee_tf.errors import DestinationError, OptionError, warn
from xee_tf.extras import extra
from xee_tf.graph import Counted, Delayed, Graph, add_task, add_value, on_cluster, run_graph
from xee_tf.identity import IdentityOptions, RunIdentity, run_identity
from xee_tf.options import IfExists, check_flags, one_of, spelled
from xee_tf.shards import (
    TABLE_MEMBER,
    OneFile,
    ShardStore,
    aborted_on_failure,
    commit_once,
    member_edges,
    pack_run,
)
from xee_tf.sidecars import (
    TABLE,
    SampleCounts,
    ShardInfo,
    TableColumn,
    TableManifest,
    TablePatches,
    deleted_error,
    export_prefix,
    find_complete,
    find_same,
    manifest_location,
    table_location,
)
from xee_tf.signals import interruptible
from xee_tf.storage import (
    Location,
    PathLike,
    begin,
    require_free,
    require_writable,
)
from xee_tf.tables.joining import TablePart, TableStore, Uploaded, join_parts, table_store, upload_parts
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

_OTHER_FORMATS = (".csv", ".parquet", ".geojson", ".json", ".gpkg", ".shp", ".kml", ".kmz", ".xlsx")

_TASKS = "table-encode-"  # how the names of the tasks that are counted begin
_TASK_BYTES = 16 << 20  # records that are encoded at a time


@dataclass(frozen=True, repr=False)
class TableResult(Summarized):
    """Result of a table export.

    Parameters
    ----------
    file : ShardInfo
        The TFRecord file: path, number of records, size in bytes and CRC-32C.
    columns : tuple of TableColumn
        Name, kind ("float" or "bytes") and shape of each column. Records do not store shapes.
    manifest : Location
        The manifest file, which stores the shapes and checksums.
    rounded : tuple of str
        Columns with integers that float32 cannot represent exactly.
    dropped : int
        Number of masked pixels that `xee_tf.sample_table` omitted.
    sampled : int
        Number of pixels from which `xee_tf.sample_table` selected rows, with those that are masked.
    short : str
        If there are fewer pixels than `n` asks for: how many of which classes.
    resumed : bool
        Whether another run had completed the table, with ``if_exists="resume"``.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2], "profile": [[1, 2, 3], [4, 5, 6]]})
    >>> result = xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> result.records, result.shapes, result.manifest.name
    (2, {'profile': (3,)}, 'sites-table.tfexport')
    """

    file: ShardInfo
    columns: tuple[TableColumn, ...]
    manifest: Location
    rounded: tuple[str, ...] = ()
    dropped: int = 0
    sampled: int = 0
    short: str = ""
    resumed: bool = field(default=False, compare=False)

    def _summary(self) -> Summary:
        rows = [
            ("rows", f"{self.records:,} × {counted(len(self.columns), 'column')}"),
            ("bytes", f"{format_bytes(self.bytes)}, crc32c {self.file.crc32c:08x}"),
        ]
        if self.rounded:
            rows.append(
                ("rounded", f"{', '.join(self.rounded)}: integers that float32 cannot represent exactly")
            )
        if self.dropped:
            rows.append(("dropped", f"{self.dropped:,} of {counted(self.sampled, 'pixel')}: masked"))
        if self.short:
            rows.append(("selected", self.short))
        if self.resumed:
            rows.append(("resumed", "the table was already complete"))
        columns = Listing("columns", [_describe_column(column) for column in self.columns], most=12)
        return Summary("TableResult", self.path, rows, listings=[columns])

    @property
    def path(self) -> str:
        """Path of the file."""
        return self.file.path

    @property
    def records(self) -> int:
        """Number of rows."""
        return self.file.records

    @property
    def bytes(self) -> int:
        """Size of the file in bytes."""
        return self.file.bytes

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the array-valued columns, for the `shapes` option of `xee_tf.open_table`."""
        return {column.name: column.shape for column in self.columns if column.shape}

    def feature_spec(self) -> dict[str, tf.io.FixedLenFeature]:
        """Return the feature specification for ``tf.io.parse_single_example``.

        Returns
        -------
        dict of str to tf.io.FixedLenFeature
            Shape and dtype of each column. Single values have the shape [1], as in Earth Engine's guide.

        Raises
        ------
        MissingExtraError
            If TensorFlow is not installed.

        Examples
        --------
        >>> import pandas as pd, tempfile, xee_tf
        >>> sites = pd.DataFrame({"B4": [0.1, 0.2]})
        >>> xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites").feature_spec()
        {'B4': FixedLenFeature(shape=[1], dtype=tf.float32, default_value=None)}
        """
        with extra("tensorflow", "feature_spec"):
            import tensorflow as tf

        dtypes = {"float": tf.float32, "bytes": tf.string}
        return {
            column.name: tf.io.FixedLenFeature(list(column.shape) or [1], dtypes[column.kind])
            for column in self.columns
        }


def _describe_column(column: TableColumn) -> tuple[str, str]:
    """Return the name of a column and a description of its values."""
    if not column.shape:
        return column.name, column.kind
    shape = f" as {' × '.join(map(str, column.shape))}" if len(column.shape) > 1 else ""
    return column.name, f"{column.kind}, {counted(column.size, 'value')}{shape}"


@spelled(TABLE_SPELLING, IdentityOptions)
@interruptible()
def export_table(
    table: Table,
    destination: PathLike,
    columns: Sequence[str] | None = None,
    geometry: Geometry | None = "lonlat",
    *,
    if_exists: IfExists = "error",
    identity: str | None = None,
    progress: bool = False,
    compute: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> TableResult | Delayed:
    """Export a table as a gzipped TFRecord of Examples, one per row, like Earth Engine's ``Export.table``.

    Writes ``<destination>.tfrecord.gz``, and ``<destination>-table.tfexport`` with shapes and checksums.
    Numbers become float lists of one value, strings become bytes lists (UTF-8), and array-valued columns
    become flattened float lists. Partitions of a lazy table are encoded in parallel, stored in temporary
    files, and joined in row order.

    Parameters
    ----------
    table : DataFrame, GeoDataFrame, Dask DataFrame or Dataset
        A table with one column for each feature. The index is omitted; ``reset_index()`` converts it to a
        column. In a Dataset, variables along its row dimension are columns, and variables with additional
        dimensions are array-valued columns. Numbers are stored as float32: integers beyond 2**24 are rounded,
        with a warning. Missing numbers are written as NaN, missing strings as empty strings. A chunked
        Dataset or a Dask frame is never loaded into memory as a whole. Dask converts the arrays in a frame to
        strings, unless the frame was created with
        ``dask.config.set({"dataframe.convert-string": False})``.
    destination : str or path-like
        Prefix of the file: a local path or an fsspec URL.
    columns : sequence of str, optional
        Columns to write, in this order; may include ``"longitude"`` and ``"latitude"``. By default all
        columns.
    geometry : {"lonlat", None}, default "lonlat"
        "lonlat": write the points of a GeoDataFrame as the columns ``longitude`` and ``latitude`` (EPSG:4326,
        whatever the CRS of the frame, with longitudes from -180 to 180). None: omit geometries.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the file exists. "resume" returns it if it was written with "resume" from the same
        table, and raises an error otherwise; see `identity`.
    progress : bool, default False
        Whether to show a progress bar.
    compute : bool, default True
        If False, return a Delayed and write nothing. Computing it checks `if_exists` again.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    TableResult or Delayed
        The file and its columns, or a Delayed that computes them if `compute` is False.

    Raises
    ------
    OptionError
        If a column is not found, column names are not unique, a dtype cannot be written, rows differ in kind
        or shape, or a row has no point; the message names the first one. Nothing is written in this case.
    GeoreferenceError
        If points have no CRS.
    DestinationExistsError
        If the file exists and `if_exists` is "error".
    DestinationError
        If the file cannot be written.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2], "landcover": [1, 3], "name": ["oak", "fir"]})
    >>> result = xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> result.records, result.path.rsplit("/")[-1]
    (2, 'sites.tfrecord.gz')
    """
    check_flags(progress=progress, compute=compute)
    target = check_target(destination, if_exists, storage_options)
    source = read_table(table, columns, geometry)
    if isinstance(source, Rows):
        if not len(source):
            raise _no_rows_error()
        source = _split_rows(source)
    known = None
    if if_exists == "resume":
        parts = {"the option columns": columns, "the option geometry": geometry}
        known = run_identity(parts, {"table": table}, IdentityOptions(identity=identity).identity)
    return write_table(source, target, known, if_exists=if_exists, progress=progress, compute=compute)


def check_target(
    destination: PathLike, if_exists: IfExists, storage_options: Mapping[str, Any] | None
) -> Location:
    """Return the location of the file, after a check that it can be written."""
    prefix = export_prefix(destination, storage_options, suffix=TABLE, example="table")
    if ending := next((end for end in _OTHER_FORMATS if prefix.name.lower().endswith(end)), None):
        raise DestinationError(
            f"{str(destination)!r} is not a prefix: tables are written as TFRecord files, and {TABLE} is "
            f"appended. Use {str(destination)[: -len(ending)]!r}."
        )
    target = table_location(prefix)
    one_of("if_exists", if_exists, get_args(IfExists))
    require_free(target, "overwrite")  # raises if it is a folder; `begin` looks for files
    require_free(manifest_location(target), "overwrite")  # only raises if it is a folder
    require_writable(target)
    return target


def write_table(
    source: LazyTable | Callable[[TableStore], LazyTable],
    target: Location,
    identity: RunIdentity | None,
    *,
    if_exists: IfExists,
    progress: bool,
    compute: bool,
) -> TableResult | Delayed:
    """Write the row groups of a table to one file, or return a Delayed that writes it.

    A callable `source` builds the table for the store, once it is known that the table is not complete.
    """
    if identity is not None and (found := _complete_table(target, identity, compute)) is not None:
        if compute:
            return found
        graph = Graph()
        name = f"table-complete-{uuid.uuid4().hex[:12]}"
        return graph.delayed(name, add_task(graph.tasks, f"{name}-0", _still_complete, target, identity))
    staging, earlier = begin(target, partial(_table_files, target), if_exists, compute, identity)
    store = table_store(staging, OneFile(target, compressed=True), earlier)
    if not compute:
        return _graph(_built(source, store), store, in_this_process=False)
    with aborted_on_failure([store]), ExitStack() as folders:
        table = _built(source, store)
        if table.local is not None:
            folders.callback(table.local.abort)
        graph = _graph(table, store, in_this_process=not on_cluster())
        result: TableResult = run_graph(graph, Counted(_TASKS, "part", "written") if progress else None)
    if result.rounded:
        warn(
            f"The columns {quoted(result.rounded)} hold integers that float32 cannot represent: they were "
            f"rounded. Only integers up to {FLOAT32_EXACT:,} are exact. To write identifiers, convert them "
            f"to strings: table[{result.rounded[0]!r}].astype(str)."
        )
    if result.short:
        warn(f"{result.short}.")
    return result


def _built(source: LazyTable | Callable[[TableStore], LazyTable], store: TableStore) -> LazyTable:
    return source if isinstance(source, LazyTable) else source(store)


def _complete_table(target: Location, identity: RunIdentity, compute: bool) -> TableResult | None:
    """Return the result of an export that is complete; None if there is none. See `find_complete`."""
    found = find_complete(TableManifest, manifest_location(target), target, identity, compute=compute)
    return None if found is None else replace(_result_of(target, found), resumed=True)


def _still_complete(target: Location, identity: RunIdentity) -> TableResult:
    """Return the result of a table that was complete when a Delayed was created; raise if it is not."""
    found = _complete_table(target, identity, True)
    if found is None:
        raise deleted_error(target)
    return found


def _result_of(target: Location, manifest: TableManifest) -> TableResult:
    file = replace(manifest.shards[0].file, path=target.url)
    location = manifest_location(target)
    counts = manifest.counts
    return TableResult(
        file, manifest.columns, location, manifest.rounded, counts.dropped, counts.pixels, counts.short_text
    )


def _table_files(target: Location) -> list[Location]:
    """Return the existing files of a table; the manifest comes first."""
    return [file for file in (manifest_location(target), target) if file.exists()]


def _write_part(read: Callable[[Any, int], Rows], store: ShardStore, number: int, group: Any) -> TablePart:
    """Encode a row group and store the part."""
    rows = read(group, number)
    encoded = (rows[start:stop].encode() for start, stop in _row_ranges(rows))
    compressed = store.names.compressed
    runs = (
        pack_run(each, member_edges(each.offsets, TABLE_MEMBER), compressed=compressed, first=number)
        for each in encoded
    )
    part = store.put(0, f"{number:06d}", runs)
    return TablePart(part, len(rows), rows.columns, rows.rounded, rows.counts)


def _row_ranges(rows: Rows) -> Iterator[tuple[int, int]]:
    """Yield the ranges of rows that are encoded at a time."""
    count = len(rows)
    step = math.ceil(count / max(1, rows.nbytes // _TASK_BYTES)) if count else 1
    for start in range(0, count, step):
        yield start, min(start + step, count)


def _split_rows(rows: Rows) -> LazyTable:
    """Split a table in memory into row groups, so that a worker gets only those that it encodes."""
    name = f"table-rows-{uuid.uuid4().hex[:12]}"
    graph = Graph()
    groups = [
        add_value(graph.tasks, (name, number), rows[start:stop])
        for number, (start, stop) in enumerate(_row_ranges(rows))
    ]
    return LazyTable(groups, graph)


def _graph(source: LazyTable, store: TableStore, *, in_this_process: bool) -> Delayed:
    """Build the graph that writes a table."""
    token = uuid.uuid4().hex[:12]
    tasks = source.graph.tasks
    parts = [
        add_task(tasks, (f"{_TASKS}{token}", number), _write_part, source.read, store, number, group)
        for number, group in enumerate(source.groups)
    ]
    uploaded = upload_parts(tasks, token, store, source.groups, parts, waits=in_this_process)
    result = add_task(
        tasks, f"table-commit-{token}", _commit, store, parts, uploaded, source.counts, source.patches
    )
    return source.graph.delayed(f"table-export-{token}", result)


def _commit(
    store: TableStore,
    parts: Sequence[TablePart],
    uploaded: Uploaded | None,
    counts: SampleCounts,
    patches: TablePatches | None,
) -> TableResult:
    """Check that the parts have the same columns, join them, and publish the file and its manifest."""
    columns = _common_columns(parts)
    target = store.names.shard(0)
    manifest, identity = manifest_location(target), store.earlier.identity
    rounded = {name for part in parts for name in part.rounded}

    def commit() -> TableResult:
        written = join_parts(store, [part.part for part in parts], uploaded)
        described = TableManifest(
            columns,
            (written.in_manifest(target.name, patches=False),),
            counts=sum((part.counts for part in parts), start=counts),
            rounded=tuple(column.name for column in columns if column.name in rounded),
            identity=identity,
            patches=patches,
        )
        store.commit([written], [(manifest, described.text().encode())])
        return _result_of(target, described)

    def find() -> TableResult | None:
        found = find_same(TableManifest, manifest, target, identity)
        return None if found is None else replace(_result_of(target, found), resumed=True)

    return commit_once(store, find, commit)


def _common_columns(parts: Sequence[TablePart]) -> tuple[TableColumn, ...]:
    """Return the columns of all parts, which must be the same."""
    expected: tuple[TableColumn, ...] | None = None
    row = 0
    for number, part in enumerate(parts):
        if part.records and expected is None:
            expected = part.columns
        if part.records and expected is not None:
            for before, found in zip(expected, part.columns, strict=True):
                if found != before:
                    raise OptionError(
                        f"Column {found.name!r}: row {row} (the first row of partition {number}) holds "
                        f"{found}, but the rows before it hold {before}. All rows of a column must have the "
                        "same kind and shape."
                    )
        row += part.records
    if expected is None:
        raise _no_rows_error(sum(part.counts.dropped for part in parts))
    return expected


def _no_rows_error(dropped: int = 0) -> OptionError:
    if dropped:
        return OptionError(
            f"There are no pixels to write ({counted(dropped, 'masked pixel')} dropped). To keep masked "
            "pixels, pass drop_nulls=False."
        )
    return OptionError("The table has no rows to export.")
