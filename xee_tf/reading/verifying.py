"""Check an export against its manifest: every file, record and checksum."""

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

from xee_tf.display import Facts, Summary, aligned, counted
from xee_tf.errors import MissingShardError, MixerError, RecordError, StorageError, XeeTFError
from xee_tf.reading.opening import open_export
from xee_tf.records import FOOTER
from xee_tf.shards import (
    GZIP,
    HEAD_BYTES,
    differing_run,
    file_stamp,
    read_index,
    read_pieces,
    scan_file,
)
from xee_tf.sidecars import (
    IMAGE_MANIFEST,
    Exported,
    ExportedTable,
    ImageManifest,
    Manifest,
    ManifestShard,
    Mixer,
    destination_of,
    differing_crs,
    differing_keys,
    find_exports,
    find_records,
    has_prefix,
    is_image,
    is_unchanged,
    listed_shards,
    manifest_location,
    manifest_of,
    prefix_of,
    read_document,
    require_whole,
)
from xee_tf.storage import Location

__all__ = ["Verification", "verify"]

_PIECE = 4 << 20  # bytes to read and decompress at a time
_THREADS = 4  # shards to check in parallel


@dataclass(frozen=True)
class Verification:
    """Result of `verify`.

    Parameters
    ----------
    names : tuple of str
        Mixers, manifests or tables that were checked.
    files : int
        Number of TFRecord files.
    records : int
        Number of records with correct checksums.
    bytes : int
        Total size of the TFRecord files in bytes.
    described : bool
        Whether all exports have a manifest. Without a manifest, only the checksums in the records are
        verified.
    problems : tuple of str
        Descriptions of all problems, with file names.

    Examples
    --------
    >>> import pandas as pd, tempfile, xee_tf
    >>> sites = pd.DataFrame({"B4": [0.1, 0.2]})
    >>> checked = verify(xee_tf.export_table(sites, tempfile.mkdtemp() + "/sites"))
    >>> checked.ok, checked.files, checked.records
    (True, 1, 2)
    """

    names: tuple[str, ...]
    files: int
    records: int
    bytes: int
    described: bool
    problems: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether no problems were found."""
        return not self.problems

    def raise_for_problems(self) -> None:
        """Raise an error if problems were found.

        Raises
        ------
        RecordError
            If there are problems; the message contains the first one and the number of others.

        Examples
        --------
        >>> checked = Verification(("s",), 1, 0, 0, True, ("s.tfrecord was not found.",))
        >>> checked.raise_for_problems()
        Traceback (most recent call last):
        ...
        xee_tf.errors.RecordError: s.tfrecord was not found.
        """
        if self.problems:
            others = len(self.problems) - 1
            more = f" ({counted(others, 'more problem', 'more problems')})" if others else ""
            raise RecordError(self.problems[0] + more)

    def _rows(self) -> Facts:
        held = f"{counted(self.records, 'record')} in {counted(self.files, 'file')}"
        against = "the manifest" if self.described else "the checksums in the records, without a manifest"
        return [
            *(("checked", name) for name in self.names),
            ("read", f"{held}, {format_bytes(self.bytes)}"),
            ("against", against),
            *(("problem", problem) for problem in self.problems),
        ]

    @property
    def _state(self) -> str:
        return "ok" if self.ok else counted(len(self.problems), "problem")

    def __repr__(self) -> str:
        # Problems are not wrapped, so that they can be searched for.
        return f"<xee_tf.Verification: {self._state}>\n{aligned(self._rows(), wrap=False)}"

    def _repr_html_(self) -> str:
        return Summary("Verification", self._state, self._rows()).html()


def verify(
    export: Exported | ExportedTable | Collection[Exported | ExportedTable],
    *,
    storage_options: Mapping[str, Any] | None = None,
) -> Verification:
    """Check that the files of an export are complete and unchanged.

    Every byte is read once. With a manifest, the size and CRC-32C of each file, the number of records, both
    checksums of each record and the content of each run of records are verified, and the mixer is compared
    with the grid. Without a manifest, the checksums in the records and the number of records are verified.

    Parameters
    ----------
    export : str, path-like, ExportResult, TableResult or collection of them
        A mixer, manifest or table, the prefix of an export, or a folder with any number of exports, as a
        local path or an fsspec URL; an export result; or a list or mapping of these, as returned with
        `split_dim`.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Returns
    -------
    Verification
        The problems that were found, if any; see its ``ok`` and ``problems``.

    Raises
    ------
    MissingShardError
        If no export was found.
    OptionError
        If the path is that of a raster file, or the collection is empty.

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
    'sites.tfrecord.gz has ... bytes; expected ... (manifest).'
    """
    return _merge([_check(location) for location in find_exports(export, storage_options)])


def _merge(checks: Sequence[Verification]) -> Verification:
    """Merge several results into one."""
    return Verification(
        tuple(name for check in checks for name in check.names),
        sum(check.files for check in checks),
        sum(check.records for check in checks),
        sum(check.bytes for check in checks),
        all(check.described for check in checks),
        tuple(problem for check in checks for problem in check.problems),
    )


def _check(location: Location) -> Verification:
    """Check one export; if it was replaced meanwhile, say only this."""
    table = not is_image(location)
    side = manifest_location(location) if table else prefix_of(location).with_suffix(IMAGE_MANIFEST)
    before = _state(side)
    found = _check_files(location, side, table)
    destination = location if table else destination_of(location)
    if found.problems and (table or has_prefix(location)):
        try:
            require_whole(destination)
        except MissingShardError as error:
            return replace(found, problems=(str(error),))
        if _state(side) != before:
            problem = f"{destination} was replaced while it was checked: check it again."
            return replace(found, problems=(problem,))
    return found


def _state(file: Location) -> tuple[str, ...]:
    """Return what changes if a manifest is replaced; empty if there is none."""
    try:
        return file_stamp(file, file.info())
    except (FileNotFoundError, StorageError):
        return ()


def _check_files(location: Location, side: Location, table: bool) -> Verification:
    """Compare the files of one export with its manifest."""
    problems: list[str] = []
    manifest = None
    try:
        document = read_document(side)
        manifest = None if document is None else manifest_of(document, str(side))
        if manifest is not None and not is_unchanged(document):
            problems.append(f"{side} was modified: its checksum does not match.")
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
            f"{file} is not a shard of this export: {side.name} lists {counted(len(known), 'shard')}."
            for file in files[len(known) :]
        ]
        files = files if len(files) >= len(known) else listed_shards(location, known)
    with ThreadPoolExecutor(_THREADS) as pool:
        found = _merge(list(pool.map(_check_file, files, known or [None] * len(files))))
    problems += found.problems
    if not table and files and not problems:
        try:  # also check that the records match the mixer, and the bands the manifest
            open_export(location)
        except (XeeTFError, OSError) as error:
            problems.append(str(error))
    names, described = (str(location),), bool(known)
    return replace(found, names=names, files=len(files), described=described, problems=tuple(problems))


def _check_mixer(location: Location, manifest: Manifest | None) -> list[str]:
    """Return the problems of a mixer, and its differences from the manifest."""
    if location.name.endswith(IMAGE_MANIFEST):
        return []
    try:
        mixer = Mixer.read(location)
    except (MixerError, OSError) as error:
        return [str(error)]
    if not isinstance(manifest, ImageManifest) or manifest.grid is None:
        return []
    wrong = differing_keys(mixer, manifest.grid)
    if mixer.crs != manifest.grid.crs:
        wrong.append(differing_crs(mixer.crs, manifest.grid.crs))
    return [f"{location}: {each} in the manifest." for each in wrong]


def _check_file(location: Location, known: ManifestShard | None) -> Verification:
    """Read and check one file."""
    raw = _ChecksummedFile(location)
    problems: list[str] = []
    records, footers = 0, []
    try:
        for rows in scan_file(iter(raw), str(location), _PIECE, lambda: int(location.info()["size"])):
            records += len(rows)
            if known is not None:
                footers.append(np.ascontiguousarray(rows[:, -FOOTER:]))
        raw.finish()
    except FileNotFoundError:
        return Verification((), 1, 0, 0, True, (f"{location} was not found.",))
    except RecordError as error:
        problems.append(str(error))
        raw.finish()
    except OSError as error:  # the rest is not known
        return Verification((), 1, records, raw.size, known is not None, (str(error),))
    if known is None:
        return Verification((), 1, records, raw.size, False, tuple(problems))
    same_kind = known.same_kind(location)
    expected = known.file
    if same_kind and raw.size != expected.bytes and not problems and _is_recompressed(location):
        same_kind = False
    if same_kind and raw.size != expected.bytes:
        problems.insert(0, f"{location} has {raw.size} bytes; expected {expected.bytes} (manifest).")
    elif same_kind and raw.crc != expected.crc32c:
        problems.insert(
            0, f"{location} has the CRC-32C {raw.crc:08x}; expected {expected.crc32c:08x} (manifest)."
        )
    if records != expected.records:
        problems.append(
            f"{location} has {counted(records, 'record')}; expected {expected.records} (manifest)."
        )
    elif (run := _differing_run(footers, known)) is not None:
        problems.append(
            f"{location}: records {run[0]} to {run[1] - 1} do not match the manifest: the file is from "
            "another export, or was modified."
        )
    return Verification((), 1, records, raw.size, True, tuple(problems))


def _is_recompressed(location: Location) -> bool:
    """Return whether another program compressed a file, so that its bytes may differ but not its records."""
    head = location.read_bytes(0, HEAD_BYTES)
    return head.startswith(GZIP) and read_index(head) is None


def _differing_run(footers: Sequence[npt.NDArray[np.uint8]], known: ManifestShard) -> tuple[int, int] | None:
    """Return the first run that differs from the manifest, as (start, stop)."""
    joined = np.concatenate([np.empty((0, FOOTER), np.uint8), *footers])
    return differing_run(joined, known.run_starts, known.run_crcs) if len(known.run_crcs) else None


class _ChecksummedFile:
    """Iterator over the bytes of a file that computes its size and checksum."""

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
        """Read the rest of the file after an error."""
        with suppress(OSError):
            for _ in self._pieces:
                pass
