"""Checking an export against its manifest: every file, record and checksum."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c
from dask.utils import format_bytes
from isal import igzip_lib

from xee_tf.errors import MissingShardError, MixerError, OptionError, RecordError, XeeTFError
from xee_tf.export.result import ExportResult
from xee_tf.reading.find import (
    MANIFEST,
    SHARDS,
    TABLE_MANIFEST,
    Exported,
    find_export,
    find_records,
    find_table,
    folder_exports,
    is_export,
    prefix_of,
)
from xee_tf.reading.reader import differing_keys, open_reader
from xee_tf.records.crc import record_crcs
from xee_tf.records.framing import FOOTER, FRAMING, HEADER, mask_crcs, read_length
from xee_tf.sidecars import ImageManifest, ManifestShard, Mixer, TableManifest, read_manifest
from xee_tf.storage import Location, PathLike
from xee_tf.tables.export import TableResult, manifest_location

__all__ = ["Verification", "verify"]

_PIECE = 4 << 20  # bytes read, and inflated, at a time
_THREADS = 4  # shards checked at a time
_LONGEST = (1 << 31) - 1  # bytes of a record that TensorFlow can parse
_ISAL_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub says an instance


@dataclass(frozen=True)
class Verification:
    """What `verify` checked and found.

    Parameters
    ----------
    names : tuple of str
        Mixers, manifests or tables.
    files : int
        TFRecord files that were read.
    records : int
        Records in them whose checksums are right.
    bytes : int
        Bytes of those files.
    described : bool
        Whether there was a manifest for all of them: without one, records are checked by their own
        checksums alone.
    problems : tuple of str
        Everything that is wrong; each names its file.
    """

    names: tuple[str, ...]
    files: int
    records: int
    bytes: int
    described: bool
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def raise_for_problems(self) -> None:
        """Raise an error if something is wrong.

        Raises
        ------
        RecordError
            With the first problem, and how many there are.
        """
        if self.problems:
            more = f" ({len(self.problems) - 1} more problems)" if len(self.problems) > 1 else ""
            raise RecordError(self.problems[0] + more)

    def __repr__(self) -> str:
        state = "ok" if self.ok else f"{len(self.problems)} problem{'s' if len(self.problems) > 1 else ''}"
        files = f"{self.files} file{'' if self.files == 1 else 's'}"
        lines = [
            f"<xee_tf.Verification: {state}>",
            *(f"  checked   {name}" for name in self.names),
            f"  read      {self.records:,} records in {files}, {format_bytes(self.bytes)}",
            f"  against   {'the manifest' if self.described else 'the checksums of records, without a manifest'}",
            *(f"  problem   {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def verify(
    export: Exported | TableResult, *, storage_options: Mapping[str, Any] | None = None
) -> Verification:
    """Check that the files of an export are whole, and those that it wrote.

    Every byte is read once, in pieces: of each file the size and CRC-32C, of each record both checksums, the
    number of records and the content of each run are compared with the manifest; the mixer is compared with
    the grid. Without a manifest, the checksums of records and their number are checked.

    Parameters
    ----------
    export : str, path-like, ExportResult or TableResult
        A mixer, manifest or table; the prefix of an export; a folder with any number of exports; or
        what an export returned. Local, or any URL that fsspec knows.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    Verification
        ``ok``, and all ``problems``.

    Raises
    ------
    MissingShardError
        If there is no export.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2]})
    >>> result = xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites")
    >>> verify(result).ok
    True
    >>> with open(result.path, "r+b") as file:
    ...     size = file.truncate(result.bytes - 1)
    >>> verify(result).problems[0].rsplit("/")[-1]
    'sites.tfrecord.gz has 74 bytes, but the manifest describes 75.'
    """
    checks = [_check(location) for location in _locations(export, storage_options)]
    return Verification(
        tuple(name for check in checks for name in check.names),
        sum(check.files for check in checks),
        sum(check.records for check in checks),
        sum(check.bytes for check in checks),
        all(check.described for check in checks),
        tuple(problem for check in checks for problem in check.problems),
    )


def _locations(source: Exported | TableResult, storage_options: Mapping[str, Any] | None) -> list[Location]:
    """The mixers, image manifests and tables that are named."""
    if isinstance(source, TableResult):
        return [find_table(source, storage_options)]
    if isinstance(source, ExportResult):
        return [find_export(source)]
    location = Location.of(source, storage_options)
    if is_export(location) or location.name.endswith(".json"):
        return [find_export(location)]
    if location.name.endswith((TABLE_MANIFEST, *SHARDS)):
        return [find_table(location)]
    found = []
    for find in (find_export, find_table):
        try:
            found.append(find(location))
        except (MissingShardError, OptionError):  # nothing of that kind, or several
            continue
    if location.fs.isdir(location.path):
        found = [*found, *folder_exports(location)]
    unique = {each.url: each for each in found}
    return list(unique.values()) or [find_export(location)]
