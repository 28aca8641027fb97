"""File names of an export: suffixes after the prefix, and recognition of files by name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xee_tf.errors import DestinationError, OptionError
from xee_tf.storage import Location, PathLike

__all__ = [
    "IMAGE_MANIFEST",
    "MIXER",
    "OLD_MANIFEST",
    "RECORDS",
    "SHARD",
    "TABLE",
    "TABLE_MANIFEST",
    "ExportNames",
    "destination_of",
    "export_prefix",
    "has_prefix",
    "image_files",
    "is_image",
    "manifest_location",
    "prefix_of",
    "refuse_raster",
    "shard_name",
    "table_location",
]

MIXER = "mixer.json"
IMAGE_MANIFEST = "image.tfexport"
TABLE_MANIFEST = "table.tfexport"
OLD_MANIFEST = "dimensions.json"
"""File that version 0.1.0 wrote instead of a manifest."""
PATCH_INDEX = "index.parquet"
TABLE = ".tfrecord.gz"
"""Suffix of the file of a table."""
RECORDS = (".tfrecord", ".tfrecord.gz")
"""Suffixes of TFRecord files."""
SHARD = r"(\d{5}|[1-9]\d{5,})\.tfrecord(\.gz)?"
"""Regular expression for the part of a shard name after the prefix of an image."""

_RASTERS = {
    ".tif": "rioxarray.open_rasterio",
    ".tiff": "rioxarray.open_rasterio",
    ".nc": "xarray.open_dataset",
    ".zarr": "xarray.open_zarr",
}
"""Suffixes of raster files that users pass by mistake, and the functions that open them."""

# Suffixes of export files, and of raster files passed by mistake.
_NO_PREFIX = re.compile(
    r"(-\d{5,})?\.tfrecords?(\.gz)?$|-?mixer\.json$|\.json$|(-(image|table))?\.tfexport$|\.tiff?$",
    re.IGNORECASE,
)


def refuse_raster(location: Location, expected: str) -> None:
    """Raise an error if a path that should be that of `expected` has the suffix of a raster file."""
    for suffix, function in _RASTERS.items():
        if location.name.lower().endswith(suffix):
            raise OptionError(f"{location} is a raster file, not {expected}: open it with {function}.")


def export_prefix(
    path: PathLike | Location,
    storage_options: Mapping[str, Any] | None = None,
    *,
    suffix: str = "",
    example: str = "scene",
) -> Location:
    """Return the prefix of file names, for example ``out/scene`` for ``out/scene-00000.tfrecord.gz``.

    A path of a folder, or with the suffix of an export file, raises an error that suggests the intended
    prefix. A folder on a local disk is allowed if an export with its name is beside it. `suffix` is a suffix
    that is allowed; `example` is a name for the error message.

    Examples
    --------
    >>> export_prefix("out/scene.tfrecord.gz")
    Traceback (most recent call last):
    ...
    xee_tf.errors.DestinationError: 'out/scene.tfrecord.gz' is not a prefix: suffixes are appended to it \
to form the file names. Use 'out/scene'.
    """
    text = path.url if isinstance(path, Location) else str(path)
    if os.sep == "/" and "\\" in text.rpartition("/")[2]:
        raise DestinationError(
            f"{text!r} contains a backslash, which is not a path separator on this system: use '/'."
        )
    folder, slash, name = text.replace(os.sep, "/").rpartition("/")
    intended = name
    if name in ("", ".", "..", "~") and text:
        bare = text.rstrip("/")
        folder, slash, intended = (f"{bare}//bucket" if bare.endswith(":") else bare), "/", ""
    elif not (suffix and name.endswith(suffix) and name != suffix):
        intended = _NO_PREFIX.sub("", name)
    if text and (not intended or intended != name):
        raise DestinationError(
            f"{text!r} is not a prefix: suffixes are appended to it to form the file names. "
            f"Use {folder + slash + (intended or example)!r}."
        )
    location = Location.of(path, storage_options)
    if os.path.isdir(location.url) and not _has_files(location):  # a URL is not the path of a folder
        raise DestinationError(
            f"{text!r} is a folder, but a prefix is the beginning of file names: the files would be written "
            f"beside the folder. Use {text + '/' + example!r} to write into it, or another prefix."
        )
    return location


def _has_files(prefix: Location) -> bool:
    """Return whether there are files of exports with a prefix, also of the steps of a split dimension."""
    pattern = re.compile(rf"{re.escape(prefix.name)}([-_].*)?\.(json|tfexport|tfrecord(\.gz)?)")
    return any(pattern.fullmatch(file.name) for file in prefix.siblings())


def shard_name(number: int, compressed: bool) -> str:
    """Return the part of a shard name after the prefix of an image and its hyphen.

    Examples
    --------
    >>> shard_name(3, compressed=True)
    '00003.tfrecord.gz'
    """
    return f"{number:05d}{RECORDS[compressed]}"


def image_files(prefix: Location, *, folders: bool = False) -> list[Location]:
    """Return the existing files of an image export with a prefix (``out/scene``), from any version.

    With `folders`, return folders with such names instead.
    """
    endings = "|".join(map(re.escape, (MIXER, IMAGE_MANIFEST, OLD_MANIFEST, PATCH_INDEX)))
    pattern = re.compile(rf"{re.escape(prefix.name)}-({SHARD}|{endings})")
    return [file for file in prefix.siblings(folders=folders) if pattern.fullmatch(file.name)]


@dataclass(frozen=True)
class ExportNames:
    """The file names of an export, as Earth Engine names files on Drive.

    Examples
    --------
    >>> names = ExportNames(Location("out/scene"), compressed=True)
    >>> names.shard(0).url, names.mixer.url
    ('out/scene-00000.tfrecord.gz', 'out/scene-mixer.json')
    """

    prefix: Location
    compressed: bool

    def shard(self, number: int) -> Location:
        """Return the location of shard `number`."""
        return self._file(shard_name(number, self.compressed))

    @property
    def mixer(self) -> Location:
        """The mixer file."""
        return self._file(MIXER)

    @property
    def index(self) -> Location:
        """The patch index (not written by Earth Engine)."""
        return self._file(PATCH_INDEX)

    @property
    def manifest(self) -> Location:
        """The manifest (not written by Earth Engine)."""
        return self._file(IMAGE_MANIFEST)

    def _file(self, name: str) -> Location:
        return self.prefix.with_suffix(f"-{name}")

    def existing(self) -> list[Location]:
        """Return the files of an earlier export with the same prefix, first the mixer and the manifest."""
        return sorted(image_files(self.prefix), key=lambda file: not is_image(file))


def is_image(location: Location) -> bool:
    """Return whether a file name is that of a mixer (any JSON file) or an image manifest."""
    return location.name.endswith((".json", IMAGE_MANIFEST))


def has_prefix(location: Location) -> bool:
    """Return whether a mixer or manifest has a standard name, from which its shards can be found."""
    return location.name.endswith((MIXER, IMAGE_MANIFEST))


def prefix_of(location: Location) -> Location:
    """Return the common prefix of the files of an image, from its mixer or manifest.

    Examples
    --------
    >>> [prefix_of(Location(f"out/{name}")).url for name in ("scene-mixer.json", "scene-image.tfexport")]
    ['out/scene-', 'out/scene-']
    """
    return location.without_suffix(MIXER, IMAGE_MANIFEST)


def destination_of(location: Location) -> Location:
    """Return the prefix that was passed to an image export, from its mixer or manifest.

    Examples
    --------
    >>> destination_of(Location("out/scene-mixer.json")).url
    'out/scene'
    """
    return prefix_of(location).without_suffix("-")


def table_location(location: Location) -> Location:
    """Return the location of a table's file, from its prefix, manifest or full name.

    Examples
    --------
    >>> [table_location(Location(f"out/sites{end}")).url for end in ("", "-table.tfexport", ".tfrecord.gz")]
    ['out/sites.tfrecord.gz', 'out/sites.tfrecord.gz', 'out/sites.tfrecord.gz']
    """
    return location.without_suffix(f"-{TABLE_MANIFEST}", TABLE).with_suffix(TABLE)


def manifest_location(file: Location) -> Location:
    """Return the location of a table's manifest, from its file, compressed or not.

    Examples
    --------
    >>> [manifest_location(Location(f"out/sites{end}")).url for end in (".tfrecord.gz", ".tfrecord")]
    ['out/sites-table.tfexport', 'out/sites-table.tfexport']
    """
    return file.without_suffix(TABLE, *RECORDS).with_suffix(f"-{TABLE_MANIFEST}")
