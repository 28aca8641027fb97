"""Checking an export against its manifest: every file, record and checksum."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from crc32c import crc32c
from dask.utils import format_bytes

from xee_tf.display import aligned, counted
from xee_tf.errors import MixerError, RecordError, XeeTFError, shorten
from xee_tf.reading.opening import open_export
from xee_tf.records import FOOTER, run_crc
from xee_tf.shards import GZIP, HEAD_BYTES, inflated, read_index, read_pieces, scan_records
from xee_tf.sidecars import (
    IMAGE_MANIFEST,
    Exported,
    ExportedTable,
    ImageManifest,
    Manifest,
    ManifestShard,
    Mixer,
    differing_keys,
    find_exports,
    find_records,
    is_image,
    is_unchanged,
    listed_shards,
    manifest_location,
    manifest_of,
    prefix_of,
    read_document,
)
from xee_tf.storage import Location

__all__ = ["Verification", "verify"]

_PIECE = 4 << 20  # bytes read, and inflated, at a time
_THREADS = 4  # shards checked at a time


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
        held = f"{counted(self.records, 'record')} in {counted(self.files, 'file')}"
        against = "the manifest" if self.described else "the checksums of records, without a manifest"
        rows = [
            *(("checked", name) for name in self.names),
            ("read", f"{held}, {format_bytes(self.bytes)}"),
            ("against", against),
            *(("problem", problem) for problem in self.problems),
        ]
        state = "ok" if self.ok else counted(len(self.problems), "problem")
        return f"<xee_tf.Verification: {state}>\n{aligned(rows, wrap=False)}"  # problems are searched for


def verify(
    export: Exported | ExportedTable | Collection[Exported | ExportedTable],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Check that the files of an export are complete and unchanged since the export.

    Every byte is read once, in pieces: of each file the size and CRC-32C, of each record both checksums, the
    number of records and the content of each run are compared with the manifest; the mixer is compared with
    the grid. Without a manifest, the checksums of records and their number are checked.

    Parameters
    ----------
    export : str, path-like, ExportResult or TableResult
        A mixer, manifest or table; the prefix of an export; a folder with any number of exports; what an
        export returned; or several of them, as `split_dim` returns them. Local, or any URL that fsspec knows.
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
    'sites.tfrecord.gz has 69 bytes, but the manifest describes 70.'
    """
    return _together([_check(location) for location in find_exports(export, storage_options)])


def _together(checks: Sequence[Verification]) -> Verification:
    """What was checked and found in several places."""
    return Verification(
        tuple(name for check in checks for name in check.names),
        sum(check.files for check in checks),
        sum(check.records for check in checks),
        sum(check.bytes for check in checks),
        all(check.described for check in checks),
        tuple(problem for check in checks for problem in check.problems),
    )


def _check(location: Location) -> Verification:
    """Check one export."""
    table = not is_image(location)
    side = manifest_location(location) if table else prefix_of(location).with_suffix(IMAGE_MANIFEST)
    problems: list[str] = []
    manifest = None
    try:
        document = read_document(side)
        manifest = None if document is None else manifest_of(document, str(side))
        if manifest is not None and not is_unchanged(document):
            problems.append(f"{side} was changed since the export: its own checksum does not match.")
    except MixerError as error:
        problems.append(str(error))
    known = () if manifest is None else manifest.shards
    files = [location]
    if not table:
        problems += _check_mixer(location, manifest)
        try:
            files = find_records(location)
        except XeeTFError as error:
            if not known:
                problems.append(str(error))
            files = []
    if known and not table:
        problems += [
            f"{file} is not a shard of this export: {side.name} lists {len(known)}."
            for file in files[len(known) :]
        ]
        files = files if len(files) >= len(known) else listed_shards(location, known)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = _together(list(pool.map(_check_file, files, known or [None] * len(files))))
    problems += found.problems
    if not table and files and not problems:
        try:  # what is left: whether records go with the mixer, bands with the manifest
            open_export(location)
        except (XeeTFError, OSError) as error:
            problems.append(str(error))
    names, described = (str(location),), bool(known)
    return replace(found, names=names, files=len(files), described=described, problems=tuple(problems))


def _check_mixer(location: Location, manifest: Manifest | None) -> list[str]:
    """What is wrong with a mixer, and where it is not that of the export."""
    if location.name.endswith(IMAGE_MANIFEST):
        return []
    try:
        mixer = Mixer.read(location)
    except (MixerError, OSError) as error:
        return [str(error)]
    if not isinstance(manifest, ImageManifest) or manifest.grid is None:
        return []
    grid = manifest.grid
    wrong = differing_keys(mixer, grid)
    if mixer.crs != grid.crs:
        wrong.append(f"crs is {shorten(repr(mixer.crs))}, but {shorten(repr(grid.crs))}")
    return [f"{location}: {each} in the manifest." for each in wrong]


def _check_file(location: Location, known: ManifestShard | None) -> Verification:
    """Go through one file once."""
    raw = _Raw(location)
    problems: list[str] = []
    records, held = 0, []
    try:
        for rows in scan_records(inflated(iter(raw), str(location), _PIECE), str(location)):
            records += len(rows)
            if known is not None:
                held.append(np.ascontiguousarray(rows[:, -FOOTER:]))
        raw.finish()
    except FileNotFoundError:
        return Verification((), 1, 0, 0, True, (f"{location} does not exist.",))
    except (RecordError, OSError) as error:
        problems.append(str(error))
        raw.finish()
    if known is None:
        return Verification((), 1, records, raw.size, False, tuple(problems))
    same_kind = known.same_kind(location)
    expected = known.file
    if same_kind and raw.size != expected.bytes and not problems and _compressed_anew(location):
        same_kind = False
    if same_kind and raw.size != expected.bytes:
        problems.insert(0, f"{location} has {raw.size} bytes, but the manifest describes {expected.bytes}.")
    elif same_kind and raw.crc != expected.crc32c:
        found = f"{raw.crc:08x}"
        problems.insert(0, f"{location} has the CRC-32C {found}, but the manifest {expected.crc32c:08x}.")
    if records != expected.records:
        problems.append(f"{location} has {records} records, but the manifest describes {expected.records}.")
    elif (wrong := _wrong_run(held, known)) is not None:
        problems.append(
            f"{location}: records {wrong[0]} to {wrong[1]} are not those that the manifest describes: it is "
            "of another export, or was changed."
        )
    return Verification((), 1, records, raw.size, True, tuple(problems))


def _compressed_anew(location: Location) -> bool:
    """Whether another program compressed a file: then its bytes may differ, but not its records."""
    head = location.read_bytes(0, HEAD_BYTES)
    return head.startswith(GZIP) and read_index(head) is None


def _wrong_run(found: Sequence[npt.NDArray[np.uint8]], known: ManifestShard) -> tuple[int, int] | None:
    """First and last record of the first run that is not that of the manifest."""
    footers = np.concatenate([np.empty((0, FOOTER), np.uint8), *found])
    start = 0
    for count, expected in zip(known.run_records.tolist(), known.run_crcs.tolist(), strict=True):
        if run_crc(footers[start : start + count]) != expected:
            return start, start + count - 1
        start += count
    return None


class _Raw:
    """The bytes of a file in pieces; size and checksum grow as they go by."""

    def __init__(self, location: Location) -> None:
        self.size = self.crc = 0
        self._pieces = self._read(location)

    def _read(self, location: Location) -> Iterator[bytes]:
        for data in read_pieces(location, _PIECE):
            self.size += len(data)
            self.crc = crc32c(data, self.crc)
            yield data

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def finish(self) -> None:
        """Go through what is left, after an error in front of it."""
        with suppress(OSError):
            for _ in self._pieces:
                pass
