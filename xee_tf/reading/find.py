"""Finding the files of an export: from what a user names to its mixer or table, then to its shards."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from xee_tf.errors import MissingShardError, MixerError, OptionError, RecordError
from xee_tf.export.result import ExportResult
from xee_tf.sidecars.names import (
    IMAGE_MANIFEST,
    MIXER,
    RECORDS,
    SHARD,
    TABLE,
    TABLE_MANIFEST,
    has_prefix,
    is_image,
    manifest_location,
    prefix_of,
    shard_name,
    table_location,
)
from xee_tf.storage import Location, PathLike
from xee_tf.tables.export import TableResult

__all__ = [
    "Exported",
    "check_order",
    "find_export",
    "find_records",
    "find_source",
    "find_table",
    "folder_exports",
]

Exported = PathLike | Location | ExportResult
"""What names an image export: its mixer, manifest, folder, prefix or result."""


def find_export(source: Exported, storage_options: Mapping[str, Any] | None = None) -> Location:
    """The mixer of an image export, or its manifest where it has no mixer.

    Parameters
    ----------
    source : str, path-like, Location or ExportResult
        A mixer or manifest; a folder with one export; the prefix of an export ("out/scene"); or what an
        export returned.
    storage_options : mapping, optional
        Handed to fsspec.

    Raises
    ------
    MissingShardError
        If there is no export.
    MixerError
        If it is a TFRecord file.
    OptionError
        If there are several exports in the folder, or it is a table.

    Examples
    --------
    >>> folder = Location.of("memory://find-export")
    >>> for name in ("scene-mixer.json", "scene-image.tfexport", "scene-00000.tfrecord.gz"):
    ...     folder.child(name).write_bytes(b"")
    >>> [find_export(path).name for path in (folder, "memory://find-export/scene")]
    ['scene-mixer.json', 'scene-mixer.json']
    """
    if isinstance(source, ExportResult):
        return source.mixer or source.manifest
    if isinstance(source, TableResult):
        raise OptionError(f"{source.path} is a table: open it with xee_tf.open_table.")
    if isinstance(source, Mapping):
        raise OptionError(f"These are {len(source)} exports: choose one of {list(source)}.")
    location = Location.of(source, storage_options)
    name = location.name
    if name.endswith(RECORDS):
        raise MixerError(
            f"{location} is a shard, not a mixer: give the path of the file that ends with {MIXER}, "
            "and the shards as records= if they are elsewhere."
        )
    if name.endswith(TABLE_MANIFEST):
        raise OptionError(f"{location} is the manifest of a table: open it with xee_tf.open_table.")
    if name.endswith(IMAGE_MANIFEST):
        mixer = prefix_of(location).with_suffix(MIXER)
        return mixer if mixer.exists() else location
    if is_image(location):
        return location
    return _beside(location) or _in_folder(location) or _existing(location)


def find_table(source: PathLike | Location | TableResult, storage_options: Any = None) -> Location:
    """The file of a table that a user names: it, its prefix, manifest or folder, or what an export returned.

    Raises
    ------
    MissingShardError
        If there is no such file.
    OptionError
        If there are several tables in the folder.
    """
    if isinstance(source, TableResult):
        return Location.of(source.path, storage_options or source.manifest.storage_options)
    location = Location.of(source, storage_options)
    exported = table_location(location)
    if location.name.endswith(TABLE_MANIFEST):
        location = exported
    folder = False
    for found in (location, exported):
        if found.exists():
            if not found.is_folder():
                return found
            folder = True
    if folder:
        files = _files(location)
        tables = [found for found in folder_exports(location) if not is_image(found)]
        tables = tables or [file for file in files if file.name.endswith(RECORDS)]
        if len(tables) == 1:
            return tables[0]
        if tables:
            raise OptionError(f"There are several tables in {location}, {_listed(tables)}: name one of them.")
    raise MissingShardError(
        f"There is no table {location}" + ("." if location == exported else f" or {exported}.")
    )


def find_source(source: Exported | TableResult, storage_options: Mapping[str, Any] | None = None) -> Location:
    """What is read for training: a mixer, a manifest, a TFRecord file, or a pattern of such files."""
    if isinstance(source, ExportResult):
        return find_export(source)
    if isinstance(source, TableResult):
        return find_table(source, storage_options)
    location = Location.of(source, storage_options)
    if is_image(location):
        return find_export(location)
    if location.name.endswith(TABLE_MANIFEST):
        return find_table(location)
    if location.name.endswith(RECORDS) or location.is_pattern:
        return location
    if (found := _beside(location)) is not None:
        return found
    if location.exists() and not location.is_folder():
        return location
    table = table_location(location)
    return table if table.exists() else _in_folder(location) or location


def _beside(prefix: Location) -> Location | None:
    """The mixer of an export with that prefix, in either of Earth Engine's namings, or its manifest."""
    if not prefix.name:
        return None
    suffixes = ("" if prefix.name.endswith("-") else "-") + MIXER, MIXER, f"-{IMAGE_MANIFEST}"
    found = (prefix.with_suffix(suffix) for suffix in suffixes)
    return next((location for location in found if location.exists()), None)


def folder_exports(folder: Location) -> list[Location]:
    """The exports in a folder, images and then tables; none if it is not a folder.

    Images are given by their mixers, or by their manifests where they have no mixer; tables by their files.
    """
    if not folder.is_folder():
        return []
    files = _files(folder)
    mixers = [file for file in files if file.name.endswith(MIXER)]
    prefixes = [prefix_of(mixer) for mixer in mixers]
    alone = [file for file in files if file.name.endswith(IMAGE_MANIFEST) and prefix_of(file) not in prefixes]
    tables = [file for file in files if file.name.endswith(TABLE) and manifest_location(file) in files]
    return [*mixers, *alone, *tables]


def _in_folder(folder: Location) -> Location | None:
    """The one image of a folder; None if it is not a folder."""
    if not folder.is_folder():
        return None
    exports = [found for found in folder_exports(folder) if is_image(found)]
    if not exports:
        raise MissingShardError(
            f"There is no export in the folder {folder}: expected a file that ends with {MIXER}."
        )
    if len(exports) > 1:
        raise OptionError(
            f"There are {len(exports)} exports in {folder}, {_listed(exports)}: name one of them."
        )
    return exports[0]


def _existing(location: Location) -> Location:
    if not location.exists():
        raise MissingShardError(
            f"There is no export {location}: expected a mixer ({location}-{MIXER}), a folder with one, or "
            "what an export returned."
        )
    return location


def _files(folder: Location) -> list[Location]:
    return [folder.child(name) for name, is_folder in folder.entries().items() if not is_folder]


def _listed(files: Sequence[Location]) -> str:
    return ", ".join(file.name for file in files[:20]) + (", ..." if len(files) > 20 else "")


def find_records(mixer: Location) -> list[Location]:
    """The shards beside a mixer or manifest, in the order of their numbers.

    Both of Earth Engine's ways to name files are known: ``<prefix>-mixer.json`` goes with
    ``<prefix>-00000.tfrecord[.gz]`` (Drive), ``<prefix>mixer.json`` with ``<prefix>00000.tfrecord[.gz]``
    (Cloud Storage).

    Parameters
    ----------
    mixer : Location
        Need not exist; only its name counts.

    Raises
    ------
    OptionError
        If its name does not end with ``mixer.json``.
    MissingShardError
        If there are no shards, or numbers are missing between them.
    RecordError
        If a shard is there twice, compressed and not.

    Examples
    --------
    >>> folder = Location.of("memory://find-records")
    >>> for name in ("scene-00000.tfrecord", "scene-00001.tfrecord", "scene-b-00000.tfrecord"):
    ...     folder.child(name).write_bytes(b"")
    >>> [shard.name for shard in find_records(folder.child("scene-mixer.json"))]
    ['scene-00000.tfrecord', 'scene-00001.tfrecord']
    """
    if not has_prefix(mixer):
        raise OptionError(
            f"The shards of {mixer} cannot be found by its name, which does not end with {MIXER!r}: "
            "give them as records=[...], in order."
        )
    prefix = prefix_of(mixer)
    found: dict[int, Location] = {}
    for file in prefix.siblings():
        match = re.fullmatch(re.escape(prefix.name) + SHARD, file.name)
        if not match:
            continue
        number = int(match[1])
        if number in found:
            raise RecordError(
                f"Shard {number} is there twice, as {found[number].name} and {file.name}: "
                "remove one of them, or give the shards as records=[...]."
            )
        found[number] = file
    if not found:
        raise MissingShardError(
            f"No shards are beside {mixer}: expected {prefix.name}{shard_name(0, False)} or "
            f"{prefix.name}{shard_name(0, True)} and so on. Where they have other names, give them as "
            "records=[...], in order."
        )
    missing = sorted(set(range(max(found))) - set(found))
    if missing:
        raise MissingShardError(
            f"{_numbers(missing)} of {mixer} missing: {prefix.name}{max(found):05d} is there. Every later "
            "patch would be out of place; fetch the missing files again."
        )
    return [found[number] for number in sorted(found)]


def check_order(records: Sequence[Location]) -> None:
    """Refuse shards of one export that are given out of order, or with gaps, as far as names tell.

    Raises
    ------
    RecordError
        If the numbers of names that differ in nothing else do not ascend.
    MissingShardError
        If they ascend with gaps.

    Examples
    --------
    >>> check_order([Location.of("a/s-00001.tfrecord"), Location.of("a/s-00000.tfrecord")])
    Traceback (most recent call last):
    ...
    xee_tf.errors.RecordError: The shards are out of order: s-00001.tfrecord comes before s-00000.tfrecord. \
Give them in the order of their numbers.
    """
    matches = [re.fullmatch(rf"(.*?){SHARD}", record.name) for record in records]
    for (first, before), (second, after) in pairwise(zip(records, matches, strict=True)):
        if not before or not after or before[1] != after[1]:
            continue
        step = int(after[2]) - int(before[2])
        if step < 1:
            raise RecordError(
                f"The shards are out of order: {first.name} comes before {second.name}. "
                "Give them in the order of their numbers."
            )
        if step > 1:
            missing = list(range(int(before[2]) + 1, int(after[2])))
            raise MissingShardError(
                f"{_numbers(missing)} missing between {first.name} and {second.name}. Every later patch "
                "would be out of place."
            )


def _numbers(missing: Sequence[int]) -> str:
    shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
    return f"Shard {shown} is" if len(missing) == 1 else f"Shards {shown} ({len(missing)} in all) are"
