"""The names of an export's files: what follows a prefix, and what a file is by its name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from xee_tf.errors import DestinationError
from xee_tf.storage import Location, PathLike

__all__ = [
    "IMAGE_MANIFEST",
    "MIXER",
    "OLD_MANIFEST",
    "PATCH_INDEX",
    "RECORDS",
    "SHARD",
    "TABLE",
    "TABLE_MANIFEST",
    "ExportNames",
    "export_prefix",
    "has_prefix",
    "image_files",
    "is_image",
    "manifest_location",
    "prefix_of",
    "shard_name",
    "table_location",
]

MIXER = "mixer.json"
IMAGE_MANIFEST = "image.tfexport"
TABLE_MANIFEST = "table.tfexport"
OLD_MANIFEST = "dimensions.json"
"""What version 0.1.0 wrote in place of a manifest."""
PATCH_INDEX = "index.parquet"
TABLE = ".tfrecord.gz"
"""The end of the one file of a table."""
RECORDS = (".tfrecord", ".tfrecord.gz")
"""The ends of all files of records."""
SHARD = r"(\d{5}|[1-9]\d{5,})\.tfrecord(\.gz)?"
"""A regular expression for what follows the prefix of an image in the name of a shard."""

# What follows a prefix, and names of rasters given by mistake.
_NO_PREFIX = re.compile(
    r"(-\d{5,})?\.tfrecords?(\.gz)?$|-?mixer\.json$|\.json$|(-(image|table))?\.tfexport$|\.tiff?$",
    re.IGNORECASE,
)


def export_prefix(
    path: PathLike | Location,
    storage_options: Mapping[str, Any] | None = None,
    *,
    suffix: str = "",
    example: str = "scene",
) -> Location:
    """The first part of file names, such as ``out/scene`` of ``out/scene-00000.tfrecord.gz``.

    A path that names a folder, or ends like one of the files themselves, is refused with the name that was
    probably meant; an ending that is allowed is the `suffix`, and `example` is a name for the error.

    Examples
    --------
    >>> export_prefix("out/scene.tfrecord.gz")
    Traceback (most recent call last):
    ...
    xee_tf.errors.DestinationError: 'out/scene.tfrecord.gz' is not a prefix: file names are made by \
adding an ending to it. Use 'out/scene'.
    """
    text = path.url if isinstance(path, Location) else str(path)
    if os.sep == "/" and "\\" in text.rpartition("/")[2]:
        raise DestinationError(
            f"{text!r} has a backslash, which is no separator here and cannot be part of a name: use '/'."
        )
    folder, slash, name = text.replace(os.sep, "/").rpartition("/")
    meant = name
    if name in ("", ".", "..", "~") and text:
        folder, slash, meant = text.rstrip("/"), "/", ""
    elif not (suffix and name.endswith(suffix) and name != suffix):
        meant = _NO_PREFIX.sub("", name)
    if text and (not meant or meant != name):
        raise DestinationError(
            f"{text!r} is not a prefix: file names are made by adding an ending to it. "
            f"Use {folder + slash + (meant or example)!r}."
        )
    return Location.of(path, storage_options)


def shard_name(number: int, compressed: bool) -> str:
    """What follows the prefix of an image, and its hyphen, in the name of a shard.

    Examples
    --------
    >>> shard_name(3, compressed=True)
    '00003.tfrecord.gz'
    """
    return f"{number:05d}{RECORDS[compressed]}"


def image_files(prefix: Location, *, folders: bool = False) -> list[Location]:
    """The files of an image export under a prefix (``out/scene``), whatever version wrote them.

    Or the folders that are in their place.
    """
    endings = "|".join(map(re.escape, (MIXER, IMAGE_MANIFEST, OLD_MANIFEST, PATCH_INDEX)))
    pattern = re.compile(rf"{re.escape(prefix.name)}-({SHARD}|{endings})")
    return [file for file in prefix.siblings(folders=folders) if pattern.fullmatch(file.name)]


@dataclass(frozen=True)
class ExportNames:
    """The names of an export's files, as Earth Engine gives them on Drive.

    Examples
    --------
    >>> names = ExportNames(Location("out/scene"), compressed=True)
    >>> names.shard(0).url, names.mixer.url
    ('out/scene-00000.tfrecord.gz', 'out/scene-mixer.json')
    """

    prefix: Location
    compressed: bool

    def shard(self, number: int) -> Location:
        """Shard `number`."""
        return self._file(shard_name(number, self.compressed))

    @property
    def mixer(self) -> Location:
        """The sidecar."""
        return self._file(MIXER)

    @property
    def index(self) -> Location:
        """The patch index (our addition)."""
        return self._file(PATCH_INDEX)

    @property
    def manifest(self) -> Location:
        """What the mixer does not hold (our addition)."""
        return self._file(IMAGE_MANIFEST)

    def _file(self, name: str) -> Location:
        return self.prefix.with_suffix(f"-{name}")

    def existing(self) -> list[Location]:
        """Files of an earlier export under the same prefix."""
        return image_files(self.prefix)


def is_image(location: Location) -> bool:
    """Whether a file stands for an image, by its name: a mixer, whatever it is called, or a manifest."""
    return location.name.endswith((".json", IMAGE_MANIFEST))


def has_prefix(location: Location) -> bool:
    """Whether the mixer or manifest of an image is called as they are, so that its shards can be found."""
    return location.name.endswith((MIXER, IMAGE_MANIFEST))


def prefix_of(location: Location) -> Location:
    """What the names of all files of an image start with, from its mixer or manifest.

    Examples
    --------
    >>> [prefix_of(Location(f"out/{name}")).url for name in ("scene-mixer.json", "scene-image.tfexport")]
    ['out/scene-', 'out/scene-']
    """
    return location.without_suffix(MIXER, IMAGE_MANIFEST)


def table_location(location: Location) -> Location:
    """The file of a table, from its prefix, its manifest or its full name.

    Examples
    --------
    >>> [table_location(Location(f"out/sites{end}")).url for end in ("", "-table.tfexport", ".tfrecord.gz")]
    ['out/sites.tfrecord.gz', 'out/sites.tfrecord.gz', 'out/sites.tfrecord.gz']
    """
    return location.without_suffix(f"-{TABLE_MANIFEST}", TABLE).with_suffix(TABLE)


def manifest_location(file: Location) -> Location:
    """The manifest beside the file of a table, which may have been inflated since.

    Examples
    --------
    >>> [manifest_location(Location(f"out/sites{end}")).url for end in (".tfrecord.gz", ".tfrecord")]
    ['out/sites-table.tfexport', 'out/sites-table.tfexport']
    """
    return file.without_suffix(TABLE, *RECORDS).with_suffix(f"-{TABLE_MANIFEST}")
