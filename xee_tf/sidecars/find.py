"""Find the mixer, manifest or table of an export from a path or an export result."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import pandas as pd
import xarray as xr

from xee_tf.display import abbreviated, counted, quoted
from xee_tf.errors import MissingShardError, MixerError, OptionError
from xee_tf.sidecars.interrupted import require_whole
from xee_tf.sidecars.missing import missing_error
from xee_tf.sidecars.names import (
    IMAGE_MANIFEST,
    MIXER,
    RECORDS,
    SHARD,
    TABLE,
    TABLE_MANIFEST,
    destination_of,
    has_prefix,
    is_image,
    manifest_location,
    prefix_of,
    refuse_raster,
    table_location,
)
from xee_tf.sidecars.shard_files import require_all_shards
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
    "require_missing",
]


@runtime_checkable
class ExportedImage(Protocol):
    """The attributes of an image export result that readers need; see `xee_tf.ExportResult`."""

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
    """The attributes of a table export result that readers need; see `xee_tf.TableResult`."""

    @property
    def file(self) -> Any:
        """The TFRecord file, with its `path`."""

    @property
    def manifest(self) -> Location:
        """The manifest."""


Exported = PathLike | Location | ExportedImage
"""An image export: the path of its mixer, manifest, folder or prefix, or the export result."""


def find_export(source: Exported, storage_options: Mapping[str, Any] | None = None) -> Location:
    """Find the mixer of an image export, or its manifest if it has no mixer.

    The source is the path of a mixer or manifest, a folder with one export, the prefix of an export
    ("out/scene"), or an export result.

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
    _check_source(source)
    if isinstance(source, Mapping):
        raise OptionError(
            f"Expected one export; got a mapping of {len(source)}: pass one of {quoted(source)}."
        )
    if isinstance(source, Collection) and not isinstance(source, str):
        raise OptionError(
            f"Expected one export; got a {type(source).__name__} of {counted(len(source), 'item')}: pass one "
            "mixer as the first argument, and shards as records=[...]."
        )
    location = _locate(source, storage_options)
    name = location.name
    if name.endswith(RECORDS):
        raise _records_error(location)
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
        if found is None and (tables := _tables_in(location)):
            raise OptionError(
                f"{location} contains a table, {tables[0].name}, but no image: open it with "
                "xee_tf.open_table."
            )
        if found is None:
            raise _nothing_in(location)
    if found is not None:
        return found
    if location.exists():
        return location
    if _table_file(location) is not None:
        raise OptionError(f"{location} is a table: open it with xee_tf.open_table.")
    require_whole(location)
    if (found := _beside(location)) is not None:  # it was put in place since
        return found
    example = "" if location.is_root else f" ({location.with_suffix(f'-{MIXER}')})"
    raise missing_error(
        location,
        f"The export {location} was not found: expected a mixer{example}, a folder that contains one, or an "
        "export result.",
    )


def require_missing(location: Location) -> None:
    """Raise an error if what was not found, a file or a prefix, is being put in place, or has been since."""
    require_whole(destination_of(location))
    if location.exists() or (not is_image(location) and _beside(location) is not None):
        raise MissingShardError(f"{location} was replaced while it was opened: open it again.")


def find_table(source: PathLike | Location | ExportedTable, storage_options: Any = None) -> Location:
    """Find the file of a table from its path, prefix, manifest or folder, or from an export result.

    If only the manifest exists, the path of the missing file is returned.
    """
    if isinstance(source, ExportedTable):
        return Location.of(source.file.path, storage_options or source.manifest.storage_options)
    if isinstance(source, ExportedImage):
        raise OptionError(f"{source.manifest} is the manifest of an image: open it with xee_tf.open_image.")
    location = _locate(source, storage_options)
    if is_image(location):
        raise OptionError(f"{location} is an image, not a table: open it with xee_tf.open_image.")
    if (found := _table_file(location)) is not None:
        return found
    exported = table_location(location)
    if location.is_folder():
        found = _one_of(_tables_in(location), location, "tables")
        if found is not None:
            return found
        if images := _images_in(location):
            raise OptionError(
                f"{location} contains an image, {images[0].name}: open it with xee_tf.open_image."
            )
    require_whole(exported)
    tried = f"{location}" if location == exported or location.is_root else f"{location} or {exported}"
    raise missing_error(location, f"No table was found at {tried}.")


def find_tables(
    source: PathLike | Location | ExportedTable, storage_options: Mapping[str, Any] | None = None
) -> list[Location]:
    """Find the files of a table from a pattern, or a single file as `find_table` does."""
    if not isinstance(source, ExportedTable | ExportedImage):
        _check_source(source)
        location = Location.of(source, storage_options)
        if location.is_pattern and _table_file(location) is None and not location.is_folder():
            return _matching(location)
    return [find_table(source, storage_options)]


def find_sources(
    source: Exported | ExportedTable, storage_options: Mapping[str, Any] | None = None
) -> list[Location]:
    """Find the sources to read for training: a mixer, a manifest, or TFRecord files.

    The source may be a glob pattern; an existing export of that name takes precedence.
    """
    if isinstance(source, ExportedImage):
        return [find_export(source)]
    if isinstance(source, ExportedTable):
        return [find_table(source, storage_options)]
    location = _locate(source, storage_options)
    if is_image(location) and not location.is_pattern:
        return [find_export(location)]
    if location.name.endswith(TABLE_MANIFEST):
        return [find_table(location)]
    if location.name.endswith(RECORDS):
        files = _matching(location)
        if location.is_pattern:
            require_all_shards(files, location)
        return files
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
            f"{location} matches both TFRecord files and {counted(len(unique), 'export')}: use a pattern "
            "that matches only one of these."
        )
    return unique or files


def find_exports(source: Any, storage_options: Mapping[str, Any] | None = None) -> list[Location]:
    """Find all exports of a source: mixers, manifests of images without a mixer, and the files of tables.

    The source is the same as for `find_export` and `find_table`, or a collection of such sources. A folder
    may contain any number of exports.
    """
    if isinstance(source, ExportedImage | ExportedTable):
        return find_sources(source, storage_options)
    _check_source(source)
    if isinstance(source, Collection) and not isinstance(source, str):
        if not source:
            raise OptionError("There is nothing to check: pass at least one export.")
        many = source.values() if isinstance(source, Mapping) else source
        return [location for each in many for location in find_exports(each, storage_options)]
    location = _locate(source, storage_options)
    if is_image(location):
        return [find_export(location)]
    if location.name.endswith((TABLE_MANIFEST, *RECORDS)):
        return [find_table(location)]
    pair = (_beside(location), _table_file(location))
    found = [*folder_exports(location), *(each for each in pair if each is not None)]
    if not found and location.is_folder() and (table := _one_of(_tables_in(location), location, "tables")):
        found = [table]
    return found or [find_export(location)]


def _locate(source: Any, storage_options: Mapping[str, Any] | None) -> Location:
    """Return the location of a source; raise an error if its name is that of a raster file."""
    _check_source(source)
    location = Location.of(source, storage_options)
    refuse_raster(location, "an export")
    return location


def _check_source(source: Any) -> None:
    """Raise an error for an empty path, and for data that a user passes instead of an export."""
    if isinstance(source, str) and not source:
        raise OptionError("The path is empty: pass the path of an export, such as 'out/scene'.")
    if isinstance(source, xr.Dataset | xr.DataArray | pd.DataFrame):
        raise OptionError(
            "Expected the path of an export, such as 'out/scene', or an export result; got a "
            f"{type(source).__name__}."
        )


def _records_error(location: Location) -> OptionError | MixerError:
    """Return the error for a TFRecord file that was passed instead of a mixer."""
    if manifest_location(location).exists():
        return OptionError(f"{location} is a table: open it with xee_tf.open_table.")
    if match := re.search(f"{SHARD}$", location.name):
        mixer = location.without_suffix(match[0]).with_suffix(MIXER)
        name = str(mixer) if mixer.exists() else f"a file that ends with {MIXER}"
        return MixerError(
            f"{location} is a shard, not a mixer: pass the mixer, {name}, as the first argument, and the "
            "shards as records=[...] if they are in another folder."
        )
    return MixerError(
        f"{location} is a TFRecord file, not a mixer. For an image, pass the mixer, a file that ends with "
        f"{MIXER}, as the first argument, and this file as records=. For a table, use xee_tf.open_table."
    )


def _matching(location: Location) -> list[Location]:
    """Return the files that match a pattern, unless a file of that name exists."""
    if not location.is_pattern or location.exists():
        return [location]
    found = list(location.matching())
    if not found:
        raise missing_error(location.parent, f"No files match {location}.")
    return found


def _table_file(location: Location) -> Location | None:
    """Return the file of the table with the given path, manifest or prefix; None if there is none."""
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
    """Return the mixer of an export (in either naming scheme of Earth Engine) or its manifest, by prefix."""
    if not prefix.name or prefix.is_root:
        return None
    suffixes = ("" if prefix.name.endswith("-") else "-") + MIXER, MIXER, f"-{IMAGE_MANIFEST}"
    found = [prefix.with_suffix(suffix) for suffix in suffixes]
    if not prefix.is_local and (listed := prefix.listed()):
        return next((location for location in found if location.name in listed), None)
    return next((location for location in found if location.exists()), None)


def folder_exports(folder: Location) -> list[Location]:
    """Return the exports in a folder, first images, then tables; an empty list if it is not a folder.

    Images are returned as mixers, or as manifests if they have no mixer; tables are returned as files.
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
    """Return the images in a folder."""
    return [found for found in folder_exports(folder) if is_image(found)]


def _tables_in(folder: Location) -> list[Location]:
    """Return the tables in a folder; without manifests, TFRecord files that are not shards of an image."""
    exports = folder_exports(folder)
    tables = [found for found in exports if not is_image(found)]
    if tables:
        return tables
    for file in _files(folder):  # the shards of an interrupted export are not tables
        if file.name.startswith(".") and file.name.endswith(".commit"):
            require_whole(folder.child(file.name[1:].removesuffix(".commit")))
    shards = [re.compile(re.escape(prefix_of(image).name) + SHARD) for image in exports if has_prefix(image)]
    return [
        file
        for file in _files(folder)
        if file.name.endswith(RECORDS) and not any(shard.fullmatch(file.name) for shard in shards)
    ]


def _one_of(found: Sequence[Location], folder: Location, what: str) -> Location | None:
    """Return the only item found in a folder, or None; raise an error if there are several."""
    if len(found) > 1:
        names = abbreviated([file.name for file in found], most=20)
        raise OptionError(f"{folder} contains {len(found)} {what}: {names}. Pass one of them.")
    return found[0] if found else None


def _nothing_in(folder: Location) -> MissingShardError:
    return missing_error(
        folder, f"The folder {folder} does not contain an export: expected a file that ends with {MIXER}."
    )


def _files(folder: Location) -> list[Location]:
    return [folder.child(name) for name, is_folder in folder.entries().items() if not is_folder]
