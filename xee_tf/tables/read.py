"""Reading a table of records into a frame, whole or by record ranges."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from xee_tf.errors import OptionError, RecordError
from xee_tf.reading.find import find_table
from xee_tf.reading.shards import Shard, first_record, number_shards, open_shards, read_records
from xee_tf.sidecars import TableManifest, read_manifest
from xee_tf.storage import Location, PathLike
from xee_tf.tables.decode import Field, decode_rows, read_fields
from xee_tf.tables.export import SUFFIX, TableResult, manifest_location
from xee_tf.tables.schema import Strings, Values

__all__ = ["open_table"]


def open_table(
    path: PathLike | Location | TableResult | Sequence[PathLike | Location | TableResult],
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
    not, if all records have the same features.

    Parameters
    ----------
    path : str, path-like, TableResult or sequence of them
        The file; ``.tfrecord.gz`` may be left out. Or a folder with one table, its manifest
        (``sites-table.tfexport``), or what `xee_tf.export_table` returned. Several are read one after
        the other.
    columns : sequence of str, optional
        Those to read. Default: all.
    shapes : mapping of str to shape, optional
        Shapes of array-valued columns, as ``{"patch": (16, 16)}``: records do not hold them. Default: those
        of the manifest beside the file; without one, flat.
    chunks : int, optional
        Give a Dask frame of partitions of so many records. In files of `export_table` each partition
        inflates its own records alone.
    encoding : str or None
        Of the strings. None: leave them bytes.
    verify : bool
        Whether checksums are checked.
    storage_options : mapping
        Handed to fsspec.

    Returns
    -------
    DataFrame or Dask DataFrame
        Columns in the order of the first record: float lists of one value as float32, int64 lists as int64,
        bytes lists as str; longer lists as a numpy array a row. The index counts the records.

    Raises
    ------
    MissingShardError
        If a file is not there.
    RecordError
        If a file is corrupt, holds no records, or a record has another shape than the first one: the file
        and the number of the record are named.
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
    single = isinstance(path, str | os.PathLike | Location | TableResult)
    paths: list[Any] = [path] if single else list(path)  # type: ignore[arg-type]
    if not paths:
        raise OptionError("There is nothing to read: name a TFRecord file.")
    files = [find_table(each, storage_options) for each in paths]
    probed = open_shards(files)
    manifest = _manifest(probed)
    shards = [shard for shard in number_shards(probed, None, -1) if shard.records]
    data = first_record(shards[0]) if shards else None
    if data is None:
        raise RecordError(f"{probed[0]} holds no records.")
    order = read_fields(data, str(shards[0]))
    known = {**_shapes(manifest, order, columns), **(shapes or {})}
    reader = _Reader(tuple(shards), order, _choose(order, columns), known, encoding, verify)
    reader.check_shapes()
    total = sum(shard.records for shard in shards)
    if chunks is None:
        return reader((0, total))
    if isinstance(chunks, bool) or int(chunks) != chunks or chunks < 1:
        raise OptionError(f"chunks must be a positive number of records; got {chunks!r}.")
    import dask
    import dask.dataframe as dd

    edges = [*range(0, total, int(chunks)), total]
    ranges = list(pairwise(edges))
    divisions = (*edges[:-1], total - 1)
    # Left to itself, Dask takes every object for a text, arrays too.
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_map(reader, ranges, meta=reader((0, 1)).iloc[:0], divisions=divisions)


def _manifest(shards: Sequence[Shard]) -> TableManifest | None:
    """The first manifest beside the files of a table; each must describe its file."""
    manifests = []
    for shard in shards:
        location = manifest_location(shard.location)
        found = read_manifest(location) if shard.location.name.endswith(SUFFIX) else None
        if not isinstance(found, TableManifest):
            continue
        manifests.append(found)
        [expected] = [known.bytes for known in found.shards] or [shard.size]
        if shard.size != expected:
            raise RecordError(
                f"{shard} has {shard.size} bytes, but {location.name} describes {expected}: the file was "
                "changed or is of another export. If it is right, remove the manifest."
            )
    return manifests[0] if manifests else None


def _shapes(
    manifest: TableManifest | None, order: Sequence[Field], columns: Sequence[str] | None
) -> dict[str, Sequence[int]]:
    """Shapes of array-valued columns by their manifest."""
    sizes = {field.name: field.size for field in order}
    wanted = sizes if columns is None else [columns] if isinstance(columns, str) else columns
    shapes = {} if manifest is None else manifest.shapes
    return {
        name: shape
        for name, shape in shapes.items()
        if name in wanted and math.prod(shape) == sizes.get(name)
    }


def _choose(order: Sequence[Field], columns: Sequence[str] | None) -> tuple[Field, ...]:
    fields = {field.name: field for field in order}
    if columns is None:
        return tuple(fields.values())
    chosen = [columns] if isinstance(columns, str) else list(columns)
    unknown = [name for name in chosen if name not in fields]
    if unknown or not chosen:
        raise OptionError(f"There are no columns {unknown or chosen}; the table has {list(fields)}.")
    return tuple(fields[name] for name in dict.fromkeys(chosen))


@dataclass(frozen=True)
class _Reader:
    """Reads a range of records; picklable."""

    shards: tuple[Shard, ...]
    order: tuple[Field, ...]
    wanted: tuple[Field, ...]
    shapes: dict[str, Sequence[int]]
    encoding: str | None
    verify: bool

    def check_shapes(self) -> None:
        sizes = {field.name: field.size for field in self.wanted if field.kind != "bytes"}
        for name, shape in self.shapes.items():
            if name not in sizes:
                raise OptionError(
                    f"shapes names {name!r}, which is no column of numbers; those are {list(sizes)}."
                )
            if math.prod(shape) != sizes[name]:
                raise OptionError(
                    f"Column {name!r} has {sizes[name]} values a row: no array of shape {tuple(shape)}."
                )

    def __call__(self, records: tuple[int, int]) -> pd.DataFrame:
        start, stop = records
        parts: list[list[Values]] = []
        for shard in self.shards:
            begin, end = max(start - shard.first, 0), min(stop - shard.first, shard.records)
            if begin < end:
                for first, buffer in read_records(shard, begin, end, share=False):
                    parts.append(self._decode(shard, first, buffer))
        columns = {
            field.name: self._column(field, [part[i] for part in parts], start)
            for i, field in enumerate(self.wanted)
        }
        return pd.DataFrame(columns, index=pd.RangeIndex(start, stop), copy=False)

    def _decode(self, shard: Shard, first: int, buffer: memoryview) -> list[Values]:
        return decode_rows(
            buffer, self.order, self.wanted, source=str(shard), first=first, verify=self.verify
        )

    def _column(self, field: Field, values: Sequence[Any], start: int) -> Any:
        if field.kind == "bytes" and field.size == 1:
            arrays = [_arrow(strings, pa.large_binary()) for strings in values]
            if self.encoding is None:
                return np.array([v for array in arrays for v in array.to_pylist()], object)
            return self._texts(field.name, arrays, values, start)
        whole = np.concatenate(values)
        shape = tuple(self.shapes.get(field.name, (field.size,)))
        if field.size == 1 and shape == (1,):
            return whole[:, 0]
        rows = np.empty(len(whole), object)
        if field.kind == "bytes":
            rows[:] = whole[:, 0]
        else:
            rows[:] = list(whole.reshape(len(whole), *shape)) if whole.size else [whole[0]] * len(whole)
        return rows

    def _texts(self, name: str, arrays: Sequence[Any], values: Sequence[Strings], start: int) -> Any:
        assert self.encoding is not None
        if self.encoding.lower().replace("-", "") == "utf8":
            texts = [_arrow(strings, pa.large_string()) for strings in values]
            try:
                for text in texts:
                    text.validate(full=True)
                return pa.chunked_array(texts).to_pandas()._values
            except (pa.ArrowInvalid, UnicodeDecodeError):
                pass  # which one it was is found below
        decoded = []
        for value in (v for array in arrays for v in array.to_pylist()):
            try:
                decoded.append(value.decode(self.encoding))
            except UnicodeDecodeError:
                record = start + len(decoded)
                shard = next(s for s in self.shards if record < s.first + s.records)
                raise RecordError(
                    f"{shard}: record {record - shard.first}: feature {name!r} holds bytes that are no "
                    f"{self.encoding} text: {value[:40]!r}. Read it with another encoding, or encoding=None."
                ) from None
        return pd.Series(decoded, dtype="str")._values


def _arrow(strings: Strings, kind: pa.DataType) -> Any:
    buffers = [None, pa.py_buffer(strings.offsets), pa.py_buffer(strings.data)]
    return pa.Array.from_buffers(kind, len(strings), buffers)
