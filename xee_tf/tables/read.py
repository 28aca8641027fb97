"""Reading a table of records into a frame, whole or by record ranges."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import pandas as pd

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.options import READ_SPELLING, check_flags, integer, spelled
from xee_tf.records import FeatureValues, Order, decode_features
from xee_tf.shards import Shard, check_shard, number_shards, open_shards, read_records, shard_spans
from xee_tf.sidecars import (
    RECORDS,
    ExportedTable,
    TableManifest,
    find_tables,
    manifest_location,
    read_manifest,
)
from xee_tf.storage import Location, PathLike
from xee_tf.tables.union import FoundColumn, Tally, describe_list, fill_column, tally, unite

__all__ = ["open_table"]


@spelled(READ_SPELLING)
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
    """A table of `tf.train.Example` records as a frame, a row for each record.

    Reads what `xee_tf.export_table` and Earth Engine write, and any other TFRecord of Examples, gzipped or
    not. The columns are the union of the features of all records: Earth Engine writes no feature for a
    property that is null.

    Parameters
    ----------
    path : str, path-like, TableResult or sequence of them
        The file; ``.tfrecord.gz`` or ``.tfrecord`` may be left out. Or a pattern of files
        (``out/sites-*.tfrecord.gz``), a folder with one table, its manifest (``sites-table.tfexport``), or
        what `xee_tf.export_table` returned. Several are read one after the other.
    columns : sequence of str, optional
        Those to read. Default: all.
    shapes : mapping of str to shape, optional
        Shapes of array-valued columns, as ``{"patch": (16, 16)}``: records do not hold them. Default: those
        of the manifest beside the file; without one, flat.
    chunks : int, optional
        Give a Dask frame of partitions of so many records. All partitions have the same columns and dtypes.
        Files of `export_table` are opened at once, and each partition inflates its own records alone; other
        files are read once when they are opened, to find their columns.
    encoding : str or None
        Of the strings. None: leave them bytes.
    verify : bool
        Whether checksums are checked.
    storage_options : mapping
        Handed to fsspec.

    Returns
    -------
    DataFrame or Dask DataFrame
        Columns in the order in which they first appear in the records. The index counts the records.

        ======================================  =======================  =======================
        lists of a column                       values                   where a record lacks it
        ======================================  =======================  =======================
        float, of one value                     float32                  NaN
        int64, of one value                     int64                    NA; the column is Int64
        float in some records, int64 in others  float64                  NaN
        bytes, of one string                    str                      None; the column is object
        float or int64, of several values       a numpy array a row      None
        bytes, of several strings               a list of bytes a row    None
        ======================================  =======================  =======================

        Lists of a column may differ in length; then each row holds an array. An empty list counts as
        absent, unless all lists of the column are empty.

    Raises
    ------
    MissingShardError
        If a file is not there.
    RecordError
        If a file is corrupt or holds no records; if a column holds numbers in some records and byte strings
        in others, or integers beyond 2**53 in some and floats in others. The message names the file and
        the record.
    OptionError
        If a column is unknown, or a shape does not fit its column.

    Examples
    --------
    >>> import pandas as pd, tempfile
    >>> from xee_tf.tables.export import export_table
    >>> sites = pd.DataFrame({"B4": [0.25, 0.5], "name": ["oak", "fir"]})
    >>> open_table(export_table(sites, tempfile.mkdtemp() + "/sites").path)
         B4 name
    0  0.25  oak
    1  0.50  fir
    """
    several = isinstance(path, Collection) and not isinstance(path, str | Mapping)
    named: Any = path
    paths: list[Any] = list(named) if several else [named]
    if not paths:
        raise OptionError("There is nothing to read: name a TFRecord file.")
    check_flags(verify=verify)
    chunks = None if chunks is None else integer(1)(chunks, "chunks")
    given = _read_shapes(shapes)
    files = [file for each in paths for file in find_tables(each, storage_options)]
    numbered = number_shards(open_shards(files), None, -1)
    shards = tuple(shard for shard in numbered if shard.records)
    if not shards:
        raise RecordError(f"{numbered[0]} holds no records.")
    names = None if columns is None else (columns,) if isinstance(columns, str) else tuple(columns)
    manifest = _manifest(numbered)
    noted = {} if manifest is None else manifest.shapes
    reader = _Reader(shards, names, given, noted, encoding, verify)
    if chunks is None:
        return reader.read_all()
    import dask

    with extra("tables", "A table in chunks"):
        import dask.dataframe as dd

    edges = [*range(0, reader.total, chunks), reader.total]
    ranges = list(pairwise(edges))
    divisions = (*edges[:-1], reader.total - 1)
    partition = partial(reader.read_part, reader.choose(reader.look()))
    # Left to itself, Dask takes every object for a text, arrays too.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(partition, ranges, meta=partition((0, 1)).iloc[:0], divisions=divisions)


def _read_shapes(shapes: Any) -> dict[str, tuple[int, ...]]:
    """Shapes as a user gives them: one whole number, or several, for each column."""
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


def _manifest(shards: Sequence[Shard]) -> TableManifest | None:
    """The first manifest beside the files of a table; each must describe its file."""
    manifests = []
    for shard in shards:
        location = manifest_location(shard.location)
        found = read_manifest(location) if shard.location.name.endswith(RECORDS) else None
        if isinstance(found, TableManifest):
            manifests.append(found)
            for known in found.shards:
                check_shard(shard, known, location.name)
    return manifests[0] if manifests else None


@dataclass(frozen=True)
class _Reader:
    """Reads records into frames; picklable."""

    shards: tuple[Shard, ...]
    names: tuple[str, ...] | None
    shapes: dict[str, tuple[int, ...]]
    noted_shapes: dict[str, tuple[int, ...]]
    encoding: str | None
    verify: bool

    @property
    def total(self) -> int:
        """Records of the table."""
        return self.shards[-1].first + self.shards[-1].records

    def read_all(self) -> pd.DataFrame:
        """All records; their columns are found as they are read."""
        parts = list(self.parts(0, self.total, self.names, verify=self.verify))
        columns = unite(tally(parts), self.total, self.describe, self.names)
        return self.frame(self.choose(columns), parts, 0, self.total)

    def read_part(self, columns: Sequence[FoundColumn], records: tuple[int, int]) -> pd.DataFrame:
        """Some records of a table whose columns were found when it was opened."""
        start, stop = records
        parts = list(self.parts(start, stop, [column.name for column in columns], verify=self.verify))
        for column in columns:
            held = [part for part in parts if part.feature.name == column.name]
            wrong = [describe_list(part.feature) for part in held if not column.accepts(part.feature)]
            if wrong or (not column.gaps and sum(len(part.records) for part in held) < stop - start):
                raise RecordError(
                    f"Feature {column.name!r} holds {wrong[0] if wrong else 'nothing'} in a record of "
                    f"{', '.join(map(str, self.shards))}, unlike those that were looked at when the "
                    "table was opened. Has the file changed since? Open it again, or without chunks=."
                )
        return self.frame(columns, parts, start, stop)

    def look(self) -> tuple[FoundColumn, ...]:
        """The columns of all records, without their values; checksums are checked when those are read.

        Of records that are all alike only the first one is looked at.
        """
        found: list[Tally] = []
        for shard in self.shards:
            if shard.same_features:
                first = tally(self.parts(shard.first, shard.first + 1, ()))
                found += [replace(item, count=shard.records) for item in first]
            else:
                found += tally(self.parts(shard.first, shard.first + shard.records, ()))
        return unite(found, self.total, self.describe, self.names)

    def choose(self, columns: Sequence[FoundColumn]) -> tuple[FoundColumn, ...]:
        """The columns that are wanted, once it is known which there are."""
        known = {column.name: column for column in columns}
        names = list(known) if self.names is None else list(dict.fromkeys(self.names))
        unknown = [name for name in names if name not in known]
        if unknown or not names:
            raise OptionError(f"There are no columns {unknown or names}; the table has {list(known)}.")
        numbers = [name for name in names if known[name].kind != "bytes"]
        for name, shape in self.shapes.items():
            if name not in numbers:
                raise OptionError(
                    f"shapes names {name!r}, which is not a column of numbers; those are {numbers}."
                )
            known[name].check_shape(shape)
        return tuple(known[name] for name in names)

    def parts(
        self, start: int, stop: int, wanted: Collection[str] | None, *, verify: bool = False
    ) -> Iterator[FeatureValues]:
        """The features of records ``start`` to ``stop - 1`` of the table, numbered through."""
        orders: list[Order] = []
        for shard, begin, end in shard_spans(self.shards, start, stop):
            for first, buffer in read_records(shard, begin, end, share=False):
                found = decode_features(buffer, orders, wanted, source=str(shard), first=first, verify=verify)
                yield from (replace(part, records=part.records + shard.first) for part in found)

    def frame(
        self, columns: Sequence[FoundColumn], parts: Iterable[FeatureValues], start: int, stop: int
    ) -> pd.DataFrame:
        """A frame of records whose columns are known."""
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
            # pandas makes texts of objects that are texts or None, and NaN of None.
            found[column.name] = pd.Series(values, index, getattr(values, "dtype", None), copy=False)
        return pd.DataFrame(found, index, copy=False)

    def shape(self, column: FoundColumn) -> Sequence[int] | None:
        """The shape of the arrays of a column: the user's, or the manifest's where the column fits it."""
        if column.name in self.shapes:
            return self.shapes[column.name]
        noted = self.noted_shapes.get(column.name)
        return noted if noted is not None and column.sizes == (math.prod(noted),) else None

    def describe(self, record: int) -> str:
        """Words for a record of the table in an error: its file, and its number in it."""
        shard = next(shard for shard in self.shards if record < shard.first + shard.records)
        return f"{shard}: record {record - shard.first}"
