"""Read a table of records into a frame, whole or by ranges of records."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd

from xee_tf.display import quoted
from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.options import check_flags, integer, read_names, spelled
from xee_tf.records import FeatureValues, Order, by_name, decode_features
from xee_tf.shards import (
    Shard,
    check_inflated,
    match_shard,
    number_shards,
    open_shards,
    read_records,
    shard_spans,
)
from xee_tf.sidecars import (
    RECORDS,
    ExportedTable,
    TableManifest,
    find_tables,
    manifest_location,
    read_manifest,
)
from xee_tf.storage import Location, PathLike
from xee_tf.tables.options import READ_TABLE_SPELLING
from xee_tf.tables.union import (
    FeatureCount,
    FoundColumn,
    count_features,
    describe_list,
    fill_column,
    merge_columns,
)

__all__ = ["open_table"]

_CELL = 4  # bytes of a value in a frame, at least


@spelled(READ_TABLE_SPELLING)
def open_table(
    path: PathLike | Location | ExportedTable | Sequence[PathLike | Location | ExportedTable],
    columns: Sequence[str] | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    chunks: int | None = None,
    encoding: str | None = "utf-8",
    verify: bool = True,
    storage_options: Mapping[str, Any] | None = None,
) -> Any:
    """Open a table of ``tf.train.Example`` records as a frame, with one row for each record.

    Tables from `xee_tf.export_table` and Earth Engine are supported, and any other TFRecord of Examples,
    gzipped or not. The columns are the union of the features of all records, because Earth Engine omits the
    feature of a property that is null.

    Parameters
    ----------
    path : str, path-like, TableResult or sequence of them
        The file; ``.tfrecord.gz`` or ``.tfrecord`` may be omitted. Or a file pattern
        (``out/sites-*.tfrecord.gz``), a folder with one table, its manifest (``sites-table.tfexport``), or
        the result of `xee_tf.export_table`. The records of multiple files are concatenated.
    columns : sequence of str, optional
        Columns to read. By default all columns.
    shapes : mapping of str to sequence of int, optional
        Shapes of array-valued columns, for example ``{"patch": (16, 16)}``, because records do not store
        them. By default the shapes in the manifest next to the file; without a manifest, arrays are flat.
    chunks : int, optional
        Return a Dask DataFrame with partitions of this number of records, which have the same columns and
        dtypes. Files from `xee_tf.export_table` are opened immediately, and a partition decompresses only its
        own records; other files are read once when they are opened, to find their columns.
    encoding : str or None, default "utf-8"
        Encoding of the strings. None: return bytes.
    verify : bool, default True
        Whether to verify the checksums of records and, with a manifest, whether they are those of the export.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    DataFrame or Dask DataFrame
        Columns in the order in which they first appear in the records. The index is the record number.

        ======================================  ========================  ===========================
        list in the records                     values of the column      if a record lacks the list
        ======================================  ========================  ===========================
        float, one value                        float32                   NaN
        int64, one value                        int64                     NA; the column is Int64
        float in some records, int64 in others  float64                   NaN
        bytes, one string                       str                       None; the column is object
        float or int64, several values          a numpy array per row     None
        bytes, several strings                  a list of bytes per row   None
        ======================================  ========================  ===========================

        If the lists of a column differ in length, each row holds an array. An empty list counts as missing,
        unless all lists of the column are empty.

    Raises
    ------
    MissingShardError
        If a file is not found.
    RecordError
        If a file is corrupt or has no records; if a column has numbers in some records and byte strings
        in others, or integers beyond 2**53 in some and floats in others. The message names the file and
        the record.
    OptionError
        If a column is not found, or a shape does not fit its column.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.25, 0.5], "name": ["oak", "fir"]})
    >>> xee_tf.open_table(xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites").path)
         B4 name
    0  0.25  oak
    1  0.50  fir
    """
    several = isinstance(path, Collection) and not isinstance(path, str | Mapping | pd.DataFrame)
    named: Any = path
    paths: list[Any] = list(named) if several else [named]
    if not paths:
        raise OptionError("path is empty: expected at least one TFRecord file.")
    check_flags(verify=verify)
    chunks = None if chunks is None else integer(1)(chunks, "chunks")
    user_shapes = _read_shapes(shapes)
    files = [file for each in paths for file in find_tables(each, storage_options)]
    manifests = [_manifest(file) for file in files]
    described = [None if each is None else each.shards[0] for each in manifests]
    numbered = [
        shard if known is None else match_shard(shard, known, manifest_location(shard.location).name)
        for shard, known in zip(
            number_shards(open_shards(files, described), None, -1), described, strict=True
        )
    ]
    shards = tuple(shard for shard in numbered if shard.records)
    if not shards:
        raise RecordError(f"{numbered[0]} contains no records.")
    names = None if columns is None else read_names(columns, "columns")
    manifest_shapes = next((each.shapes for each in manifests if each is not None), {})
    reader = _Reader(shards, names, user_shapes, manifest_shapes, encoding, verify)
    if chunks is None:
        return reader.read_all()
    import dask

    with extra("tables", "A table in chunks"):
        import dask.dataframe as dd

    edges = [*range(0, reader.total, chunks), reader.total]
    ranges = list(pairwise(edges))
    divisions = (*edges[:-1], reader.total - 1)
    partition = partial(reader.read_part, reader.selected(reader.scan()))
    # By default Dask converts all objects to strings, including arrays.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(partition, ranges, meta=partition((0, 1)).iloc[:0], divisions=divisions)


def _read_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
    """Convert user-given shapes, one or more whole numbers for each column, to tuples."""
    if shapes is None:
        return {}
    if not isinstance(shapes, Mapping):
        raise OptionError(f"shapes must be a mapping such as {{'patch': (16, 16)}}; got {shapes!r}.")
    found = {}
    for name, shape in shapes.items():
        lengths = shape if isinstance(shape, Iterable) else [shape]
        try:
            found[name] = tuple(operator.index(length) for length in lengths)
        except TypeError:
            raise OptionError(f"The shape of {name!r} must be whole numbers; got {shape!r}.") from None
    return found


def _manifest(file: Location) -> TableManifest | None:
    """Return the manifest of a table, if it has one."""
    found = read_manifest(manifest_location(file)) if file.name.endswith(RECORDS) else None
    return found if isinstance(found, TableManifest) and len(found.shards) == 1 else None


@dataclass(frozen=True)
class _Reader:
    """Picklable reader of records into frames."""

    shards: tuple[Shard, ...]
    names: tuple[str, ...] | None
    shapes: dict[str, tuple[int, ...]]
    manifest_shapes: dict[str, tuple[int, ...]]
    encoding: str | None
    verify: bool

    @property
    def total(self) -> int:
        """Number of records of the table."""
        return self.shards[-1].first + self.shards[-1].records

    def read_all(self) -> pd.DataFrame:
        """Read all records and find their columns in the same pass."""
        parts = list(self.parts(0, self.total, self.names, verify=self.verify))
        columns = merge_columns(count_features(parts), self.total, self.describe, self.names)
        return self.frame(self.selected(columns), parts, 0, self.total)

    def read_part(self, columns: Sequence[FoundColumn], records: tuple[int, int]) -> pd.DataFrame:
        """Read a range of records of a table whose columns are known."""
        start, stop = records
        parts = list(self.parts(start, stop, [column.name for column in columns], verify=self.verify))
        named = by_name(parts)
        for column in columns:
            held = named.get(column.name, [])
            wrong = [describe_list(part.feature) for part in held if not column.accepts(part.feature)]
            if wrong or (not column.gaps and sum(len(part.records) for part in held) < stop - start):
                raise RecordError(
                    f"Feature {column.name!r} holds {wrong[0] if wrong else 'nothing'} in a record of "
                    f"{', '.join(map(str, self.shards))}, which does not match the columns found when the "
                    "table was opened. If the file has changed, open it again, or open it without chunks=."
                )
        return self.frame(columns, parts, start, stop)

    def scan(self) -> tuple[FoundColumn, ...]:
        """Find the columns of all records without their values, and without a check of checksums.

        In a file whose records all have the same features, only the first record is read.
        """
        found: list[FeatureCount] = []
        for shard in self.shards:
            if shard.same_features:
                first = count_features(self.parts(shard.first, shard.first + 1, ()))
                found += [replace(item, count=shard.records) for item in first]
            else:
                found += count_features(self.parts(shard.first, shard.first + shard.records, ()))
        return merge_columns(found, self.total, self.describe, self.names)

    def selected(self, columns: Sequence[FoundColumn]) -> tuple[FoundColumn, ...]:
        """Select the requested columns from those of the table, and check the shapes given for them."""
        known = {column.name: column for column in columns}
        names = list(known) if self.names is None else list(self.names)
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise OptionError(f"Columns {quoted(unknown or names)} not found; available: {quoted(known)}.")
        numbers = [name for name in names if known[name].kind != "bytes"]
        for name, shape in self.shapes.items():
            if name not in numbers:
                raise OptionError(
                    f"shapes contains {name!r}, which is not a numeric column; available: {numbers}."
                )
            known[name].check_shape(shape)
        return tuple(known[name] for name in names)

    def parts(
        self, start: int, stop: int, wanted: Collection[str] | None, *, verify: bool = False
    ) -> Iterator[FeatureValues]:
        """Yield the features of records ``start`` to ``stop - 1``, with record numbers in the whole table."""
        orders: list[Order] = []
        size, compressed = 0, sum(shard.size for shard in self.shards)
        for shard, begin, end in shard_spans(self.shards, start, stop):
            for first, buffer in read_records(shard, begin, end, share=False, verify=verify):
                size += 0 if wanted == () else len(buffer)  # without values, nothing is kept
                check_inflated(f"The table {self.shards[0]}", size, compressed)
                found = decode_features(buffer, orders, wanted, source=str(shard), first=first, verify=verify)
                yield from (replace(part, records=part.records + shard.first) for part in found)

    def frame(
        self, columns: Sequence[FoundColumn], parts: Iterable[FeatureValues], start: int, stop: int
    ) -> pd.DataFrame:
        """Build a frame from features of records ``start`` to ``stop - 1``."""
        # If records have different features, the frame consists mostly of missing values.
        size = _CELL * len(columns) * (stop - start)
        check_inflated(f"The table {self.shards[0]}", size, sum(shard.size for shard in self.shards))
        held: dict[str, list[FeatureValues]] = {column.name: [] for column in columns}
        for part in parts:
            if part.feature.name in held:
                held[part.feature.name].append(replace(part, records=part.records - start))
        index = pd.RangeIndex(start, stop)
        found = {}
        for column in columns:
            values = fill_column(
                column,
                held[column.name],
                stop - start,
                lambda row: self.describe(start + row),
                shape=self.shape(column),
                encoding=self.encoding,
            )
            # Without a dtype, pandas would convert objects to strings, and None to NaN.
            found[column.name] = pd.Series(values, index, getattr(values, "dtype", None), copy=False)
        return pd.DataFrame(found, index, copy=False)

    def shape(self, column: FoundColumn) -> Sequence[int] | None:
        """Return the shape of the arrays of a column: from the user, or from the manifest if it fits."""
        if column.name in self.shapes:
            return self.shapes[column.name]
        shape = self.manifest_shapes.get(column.name)
        return shape if shape is not None and column.sizes == (math.prod(shape),) else None

    def describe(self, record: int) -> str:
        """Describe a record of the table in an error message: its file, and its number in the file."""
        shard = next(shard for shard in self.shards if record < shard.first + shard.records)
        return f"{shard}: record {record - shard.first}"
