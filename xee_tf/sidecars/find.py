"""From what a user names to the mixer, manifest or table of an export."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from xee_tf.errors import MissingShardError, MixerError, OptionError
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
    table_location,
)
from xee_tf.storage import Location, PathLike

__all__ = [
    "Exported",
    "ExportedImage",
    "ExportedTable",
    "find_export",
    "find_exports",
    "find_sources",
    "find_table",
    "find_tables",
    "folder_exports",
]


@runtime_checkable
class ExportedImage(Protocol):
    """What an image export returns, as far as readers need it; see `xee_tf.ExportResult`."""

    @property
    def files(self) -> Sequence[Any]:
        """The shards, in order."""

    @property
    def mixer(self) -> Location | None:
        """The mixer, if one was written."""

    @property
    def manifest(self) -> Location:
        """The manifest."""


@runtime_checkable
class ExportedTable(Protocol):
    """What a table export returns, as far as readers need it; see `xee_tf.TableResult`."""

    @property
    def file(self) -> Any:
        """The TFRecord file: its `path` and what is in it."""

    @property
    def manifest(self) -> Location:
        """The manifest."""


Exported = PathLike | Location | ExportedImage
"""What names an image export: its mixer, manifest, folder, prefix or result."""


def find_export(source: Exported, storage_options: Mapping[str, Any] | None = None) -> Location:
    """The mixer of an image export, or its manifest where it has no mixer.

    It is named by its mixer or manifest; a folder with one export; the prefix of an export ("out/scene"); or
    what an export returned.

    Examples
    --------
    >>> folder = Location.of("memory://find-export")
    >>> for name in ("scene-mixer.json", "scene-image.tfexport", "scene-00000.tfrecord.gz"):
    ...     folder.child(name).write_bytes(b"")
    >>> [find_export(path).name for path in (folder, "memory://find-export/scene")]
    ['scene-mixer.json', 'scene-mixer.json']
    """
    if isinstance(source, ExportedImage):
        return source.mixer or source.manifest
    if isinstance(source, ExportedTable):
        raise OptionError(f"{source.file.path} is a table: open it with xee_tf.open_table.")
    if isinstance(source, Mapping):
        raise OptionError(f"These are {len(source)} exports: choose one of {list(source)}.")
    if isinstance(source, Collection) and not isinstance(source, str):
        raise OptionError(f"Expected one export; got {len(source)} in a {type(source).__name__}: name one.")
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
    found = _beside(location)
    if found is None and location.is_folder():
        found = _one_of(_images_in(location), location, "exports")
        if found is None:
            raise _nothing_in(location)
    if found is not None:
        return found
    if location.exists():
        return location
    example = "" if location.is_root else f" ({location.with_suffix(f'-{MIXER}')})"
    raise MissingShardError(
        f"There is no export {location}: expected a mixer{example}, a folder with one, or what an export "
        "returned."
    )


def find_table(source: PathLike | Location | ExportedTable, storage_options: Any = None) -> Location:
    """The file of a table that a user names: it, its prefix, manifest or folder, or what an export returned.

    A file whose manifest alone is there is given as if it were there.
    """
    if isinstance(source, ExportedTable):
        return Location.of(source.file.path, storage_options or source.manifest.storage_options)
    if isinstance(source, ExportedImage):
        raise OptionError(f"{source.manifest} is the manifest of an image: open it with xee_tf.open_image.")
    location = Location.of(source, storage_options)
    if is_image(location):
        raise OptionError(f"{location} names an image, not a table: open it with xee_tf.open_image.")
    if (found := _table_file(location)) is not None:
        return found
    exported = table_location(location)
    if location.is_folder():
        found = _one_of(_tables_in(location), location, "tables")
        if found is not None:
            return found
        if images := _images_in(location):
            raise OptionError(f"{location} holds an image, {images[0].name}: open it with xee_tf.open_image.")
    raise MissingShardError(
        f"There is no table {location}" + ("." if location == exported else f" or {exported}.")
    )


def find_tables(
    source: PathLike | Location | ExportedTable, storage_options: Mapping[str, Any] | None = None
) -> list[Location]:
    """The files of a table that a user names, as `find_table` does, or by a pattern."""
    if not isinstance(source, ExportedTable | ExportedImage):
        location = Location.of(source, storage_options)
        if location.is_pattern and _table_file(location) is None and not location.is_folder():
            return _matching(location)
    return [find_table(source, storage_options)]


def find_sources(
    source: Exported | ExportedTable, storage_options: Mapping[str, Any] | None = None
) -> list[Location]:
    """What is read for training: a mixer, a manifest, or TFRecord files, by a pattern too.

    What a name stands for is looked for first; only then is it a pattern.
    """
    if isinstance(source, ExportedImage):
        return [find_export(source)]
    if isinstance(source, ExportedTable):
        return [find_table(source, storage_options)]
    location = Location.of(source, storage_options)
    if is_image(location) and not location.is_pattern:
        return [find_export(location)]
    if location.name.endswith(TABLE_MANIFEST):
        return [find_table(location)]
    if location.name.endswith(RECORDS):
        return _matching(location)
    if (found := _beside(location) or _table_file(location)) is not None:
        return [found]
    if location.is_folder():
        found = _one_of(_images_in(location), location, "exports")
        found = found or _one_of(_tables_in(location), location, "tables")
        if found is None:
            raise _nothing_in(location)
        return [found]
    files = _matching(location)
    exports = [find_export(file) for file in files if is_image(file)]
    unique = list({export.url: export for export in exports}.values())
    if unique and any(file.name.endswith(RECORDS) for file in files):
        raise OptionError(
            f"{location} stands for {len(unique)} exports and for files of records: name mixers, or files."
        )
    return unique or files


def find_exports(source: Any, storage_options: Mapping[str, Any] | None = None) -> list[Location]:
    """All exports that a user names: mixers, manifests of images without one, and the files of tables.

    They are named as for `find_export` and `find_table`, or are a collection; a folder may hold any number.
    """
    if isinstance(source, ExportedImage | ExportedTable):
        return find_sources(source, storage_options)
    if isinstance(source, Collection) and not isinstance(source, str):
        if not source:
            raise OptionError("There is nothing to check: name an export.")
        many = source.values() if isinstance(source, Mapping) else source
        return [location for each in many for location in find_exports(each, storage_options)]
    location = Location.of(source, storage_options)
    if is_image(location):
        return [find_export(location)]
    if location.name.endswith((TABLE_MANIFEST, *RECORDS)):
        return [find_table(location)]
    pair = (_beside(location), _table_file(location))
    found = [*folder_exports(location), *(each for each in pair if each is not None)]
    if not found and location.is_folder():
        found = [find_table(location)]
    return found or [find_export(location)]


def _matching(location: Location) -> list[Location]:
    """The files of a pattern, unless a file has that name."""
    if not location.is_pattern or location.exists():
        return [location]
    found = location.matching()
    if not found:
        raise MissingShardError(f"No file matches {location}.")
    return found


def _table_file(location: Location) -> Location | None:
    """The file of the table that a file, a manifest or a prefix stands for; None if there is none."""
    manifest = manifest_location(location)
    if location.name.endswith(TABLE_MANIFEST):
        location, manifest = location.without_suffix(f"-{TABLE_MANIFEST}"), location
    elif location.exists() and not location.is_folder():
        return location
    if location.is_root or not location.name:
        return None
    named = location.name.endswith(RECORDS)
    files = [location] if named else [location.with_suffix(suffix) for suffix in (TABLE, *RECORDS)]
    for file in files:
        if file.exists() and not file.is_folder():
            return file
    return files[0] if manifest.exists() else None


def _beside(prefix: Location) -> Location | None:
    """The mixer of an export with that prefix, in either of Earth Engine's namings, or its manifest."""
    if not prefix.name or prefix.is_root:
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
    tables = [_table_file(file) for file in files if file.name.endswith(TABLE_MANIFEST)]
    return [*mixers, *alone, *(table for table in tables if table is not None)]


def _images_in(folder: Location) -> list[Location]:
    """The images in a folder."""
    return [found for found in folder_exports(folder) if is_image(found)]


def _tables_in(folder: Location) -> list[Location]:
    """The tables in a folder; without any manifest, the files of records that are no shards of an image."""
    exports = folder_exports(folder)
    tables = [found for found in exports if not is_image(found)]
    if tables:
        return tables
    shards = [re.compile(re.escape(prefix_of(image).name) + SHARD) for image in exports if has_prefix(image)]
    return [
        file
        for file in _files(folder)
        if file.name.endswith(RECORDS) and not any(shard.fullmatch(file.name) for shard in shards)
    ]


def _one_of(found: Sequence[Location], folder: Location, what: str) -> Location | None:
    """The one thing that was found in a folder, if any was."""
    if len(found) > 1:
        raise OptionError(f"There are {len(found)} {what} in {folder}, {_listed(found)}: name one of them.")
    return found[0] if found else None


def _nothing_in(folder: Location) -> MissingShardError:
    return MissingShardError(
        f"There is no export in the folder {folder}: expected a file that ends with {MIXER}."
    )


def _files(folder: Location) -> list[Location]:
    return [folder.child(name) for name, is_folder in folder.entries().items() if not is_folder]


def _listed(files: Sequence[Location]) -> str:
    return ", ".join(file.name for file in files[:20]) + (", ..." if len(files) > 20 else "")
