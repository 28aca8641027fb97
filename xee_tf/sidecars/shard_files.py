"""Find the shard files of an export by name, and check their order."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import count, islice, pairwise
from typing import Any, NamedTuple

from xee_tf.display import counted
from xee_tf.errors import MissingShardError, OptionError, RecordError
from xee_tf.sidecars.documents import ManifestShard
from xee_tf.sidecars.interrupted import require_whole
from xee_tf.sidecars.manifest import ImageManifest, Manifest, TableManifest, TablePatches
from xee_tf.sidecars.manifest_files import read_manifest
from xee_tf.sidecars.missing import missing_error
from xee_tf.sidecars.names import (
    IMAGE_MANIFEST,
    MIXER,
    RECORDS,
    SHARD,
    destination_of,
    has_prefix,
    is_image,
    manifest_location,
    prefix_of,
    refuse_raster,
    shard_name,
)
from xee_tf.storage import Location

__all__ = [
    "DescribedFile",
    "check_order",
    "describe_files",
    "find_records",
    "find_shards",
    "image_manifests",
    "listed_shards",
    "require_all_shards",
]


def find_records(mixer: Location, names: Collection[str] = ()) -> list[Location]:
    """Find the shards of a mixer or manifest, which need not exist, in numerical order.

    `names` are the files beside the mixer, if they have been listed already.

    Both naming schemes of Earth Engine are supported: ``<prefix>-mixer.json`` with
    ``<prefix>-00000.tfrecord[.gz]`` (Drive), and ``<prefix>mixer.json`` with ``<prefix>00000.tfrecord[.gz]``
    (Cloud Storage). Missing or duplicate numbers raise an error.

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
            f"The shards of {mixer} cannot be found, because its name does not end with {MIXER!r}: "
            "pass them as records=[...], in order."
        )
    prefix = prefix_of(mixer)
    folder = prefix.parent
    found = _numbered(prefix, [folder.child(name) for name in names] or prefix.siblings(), mixer)
    if not found:
        raise MissingShardError(
            f"No shards found for {mixer}: expected {prefix.name}{shard_name(0, False)} or "
            f"{prefix.name}{shard_name(0, True)} and so on. If they have other names, pass them as "
            "records=[...], in order."
        )
    return found


def find_shards(records: Location) -> dict[Location, Mapping[str, Any]]:
    """Find the TFRecord files that a user passes: one file, a glob pattern, or the prefix of numbered files.

    Each file is returned with what the store said about it, so that it need not be asked for again. A path
    that ends with ``.tfrecord`` or ``.tfrecord.gz`` is returned as it is, even if it does not exist.

    Examples
    --------
    >>> folder = Location.of("memory://find-shards")
    >>> for name in ("scene-00000.tfrecord", "scene-00001.tfrecord"):
    ...     folder.child(name).write_bytes(b"")
    >>> [shard.name for shard in find_shards(folder.child("scene"))]
    ['scene-00000.tfrecord', 'scene-00001.tfrecord']
    """
    if records.name.endswith(RECORDS) and not records.is_pattern:
        return {records: {}}
    if is_image(records):
        raise OptionError(
            f"{records} describes the records of an export, and contains none: pass the TFRecord files, or "
            f"their prefix, such as {destination_of(records)}."
        )
    if (info := _info(records)) is not None:
        refuse_raster(records, "a TFRecord file")
    if info is not None and info["type"] == "directory":
        raise OptionError(
            f"{records} is a folder: pass the TFRecord files in it, in order, or their prefix, such as "
            f"{records.child('prediction')}."
        )
    if info is not None:
        return {records: info}
    if records.is_pattern:
        if matching := records.matching():
            return matching
        raise missing_error(records.parent, f"No files match {records}.")
    prefix = records.with_suffix("-")
    listed = {prefix.sibling(name): info for name, info in prefix.listed().items()}
    files = [file for file, info in listed.items() if info["type"] != "directory"]
    if found := _numbered(prefix, files, records):
        return {file: listed[file] for file in found}
    for file in map(records.with_suffix, RECORDS):
        if file.exists():
            return {file: {}}
    raise missing_error(
        records, f"{records} was not found: expected TFRecord files, or their prefix, as records."
    )


def _info(location: Location) -> Mapping[str, Any] | None:
    """Return the "type" of a path, "file" or "directory", and what else a single request to a store tells.

    None if there is neither.
    """
    if location.is_local or location.is_web:  # on web servers, only a listing tells a folder from a file
        kind = "directory" if location.is_folder() else "file" if location.exists() else None
        return None if kind is None else {"type": kind}
    try:
        return location.info()
    except (MissingShardError, NotADirectoryError):
        return None


def _numbered(prefix: Location, files: Sequence[Location], source: Location) -> list[Location]:
    """Return the files with a prefix and a number, in order; raise an error if a number is missing."""
    found: dict[int, Location] = {}
    for file in files:
        match = re.fullmatch(re.escape(prefix.name) + SHARD, file.name)
        if not match:
            continue
        number = int(match[1])
        if number in found:
            raise RecordError(
                f"Shard {number} exists twice, as {found[number].name} and {file.name}: "
                "remove one of them, or pass the shards as records=[...]."
            )
        found[number] = file
    last = max(found, default=-1)
    if missing := last + 1 - len(found):
        absent = (number for number in count() if number not in found)
        raise MissingShardError(
            f"{_missing(absent, missing, f' of {source}')}, but {found[last].name} exists. Every later patch "
            "would be misplaced; download the missing files again."
        )
    return [found[number] for number in sorted(found)]


def image_manifests(files: Sequence[Location]) -> dict[Location, ImageManifest]:
    """Return the manifests of the images to which shards belong, according to their names."""
    sides = dict.fromkeys(
        file.without_suffix(match[0]).with_suffix(IMAGE_MANIFEST)
        for file in files
        if (match := re.search(f"{SHARD}$", file.name))
    )
    manifests = {side: read_manifest(side) for side in sides}
    return {side: found for side, found in manifests.items() if isinstance(found, ImageManifest)}


class DescribedFile(NamedTuple):
    """How a manifest describes a file, the manifest, and the patches of a table of patches."""

    shard: ManifestShard
    manifest: Location
    patches: TablePatches | None = None
    patch_columns: frozenset[str] = frozenset()


def describe_files(files: Sequence[Location]) -> list[DescribedFile | None]:
    """Return how the manifest beside each file describes it; None if there is none.

    The file is a table, or a shard of an image that is found by its number.

    Raises
    ------
    RecordError
        If the manifest of an image has fewer shards.
    MissingShardError
        If the manifest is missing because an export was interrupted.
    """
    manifests: dict[Location, Manifest | None] = {}

    def read(location: Location) -> Manifest | None:
        if location not in manifests:
            manifests[location] = read_manifest(location)
            if manifests[location] is None and location.name.endswith(IMAGE_MANIFEST):
                require_whole(destination_of(location))
        return manifests[location]

    found: list[DescribedFile | None] = []
    for file in files:
        described = None
        if match := re.search(f"{SHARD}$", file.name):
            side = file.without_suffix(match[0]).with_suffix(IMAGE_MANIFEST)
            if isinstance(manifest := read(side), ImageManifest) and manifest.shards:
                if int(match[1]) >= len(manifest.shards):
                    raise RecordError(
                        f"{file} is not a shard of this export: {side.name} lists "
                        f"{counted(len(manifest.shards), 'shard')}. Remove the file, or the manifest."
                    )
                described = DescribedFile(manifest.shards[int(match[1])], side)
        if described is None and file.name.endswith(RECORDS):
            side = manifest_location(file)
            if isinstance(table := read(side), TableManifest) and len(table.shards) == 1:
                described = DescribedFile(table.shards[0], side, table.patches, table.patch_columns)
        found.append(described)
    return found


def require_all_shards(files: Sequence[Location], pattern: Location) -> None:
    """Raise an error if a manifest beside the files lists a shard that matches the pattern but is missing."""
    numbers: dict[Location, set[int]] = {}
    for file in files:
        if match := re.search(f"{SHARD}$", file.name):
            side = file.without_suffix(match[0]).with_suffix(IMAGE_MANIFEST)
            numbers.setdefault(side, set()).add(int(match[1]))
    for side, found in numbers.items():
        manifest = read_manifest(side)
        if not isinstance(manifest, ImageManifest):
            continue
        for number, shard in enumerate(listed_shards(side, manifest.shards) if manifest.shards else ()):
            if number not in found and fnmatchcase(shard.name, pattern.name):
                raise MissingShardError(
                    f"{shard} is missing: it matches {pattern}, and {side.name} lists it. Restore it, or "
                    "pass a list of files."
                )


def listed_shards(location: Location, known: Sequence[ManifestShard]) -> list[Location]:
    """Return the expected paths of the shards that a manifest lists, next to the mixer or manifest."""
    prefix, compressed = prefix_of(location), known[0].file.path.endswith(".gz")
    return [prefix.with_suffix(shard_name(number, compressed)) for number in range(len(known))]


def check_order(records: Sequence[Location]) -> None:
    """Raise an error if the shards of one export are out of order or incomplete.

    Examples
    --------
    >>> check_order([Location.of("a/s-00001.tfrecord"), Location.of("a/s-00000.tfrecord")])
    Traceback (most recent call last):
    ...
    xee_tf.errors.RecordError: The shards are out of order: s-00001.tfrecord comes before s-00000.tfrecord. \
Pass them in numerical order.
    """
    matches = [re.fullmatch(rf"(.*?){SHARD}", record.name) for record in records]
    for (first, before), (second, after) in pairwise(zip(records, matches, strict=True)):
        if not before or not after or before[1] != after[1]:
            continue
        step = int(after[2]) - int(before[2])
        if step < 1:
            raise RecordError(
                f"The shards are out of order: {first.name} comes before {second.name}. "
                "Pass them in numerical order."
            )
        if step > 1:
            raise MissingShardError(
                f"{_missing(count(int(before[2]) + 1), step - 1)} between {first.name} and "
                f"{second.name}. Every later patch would be misplaced."
            )


def _missing(numbers: Iterable[int], total: int, of: str = "") -> str:
    """Say that the first `total` of the numbers, which may be very many, are missing."""
    first = ", ".join(map(str, islice(numbers, total if total <= 11 else 10)))
    if total == 1:
        return f"Shard {first}{of} is missing"
    more = f" and {total - 10:,} more" if total > 11 else ""
    return f"Shards {first}{more}{of} are missing"
