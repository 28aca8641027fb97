"""Read and parse manifest files."""

from __future__ import annotations

import math
from typing import Any

from xee_tf.errors import ManifestError, OptionError, excerpt, shorten
from xee_tf.sidecars.manifest import FORMAT_VERSION, ImageManifest, Manifest, TableManifest
from xee_tf.sidecars.packing import is_unchanged, parse_json, read_whole
from xee_tf.storage import Location, is_inaccessible

__all__ = ["manifest_of", "parse_dimensions", "read_document", "read_manifest"]

_LARGEST = 1 << 30  # maximum size of a manifest in bytes


def manifest_of(document: Any, source: str = "the manifest") -> Manifest:
    """Create a manifest of either kind from a parsed document.

    Examples
    --------
    >>> manifest_of({"format": "xee_tf image", "formatVersion": "2.0"}, "scene-image.tfexport")
    Traceback (most recent call last):
    ...
    xee_tf.errors.ManifestError: scene-image.tfexport has format version 2.0, but this version of xee_tf \
reads version 1: use a newer xee_tf, or remove the file to have its content inferred.
    """
    kinds: dict[Any, Any] = {"xee_tf image": ImageManifest, "xee_tf table": TableManifest}
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(found, str) or found not in kinds:
        raise ManifestError(
            f'{source} is not a manifest: expected "format": "xee_tf image" or "xee_tf table"; '
            f"got {excerpt(found)}."
        )
    version = str(document.get("formatVersion"))
    ours = FORMAT_VERSION.split(".")[0]
    if version.split(".")[0] != ours:
        raise ManifestError(
            f"{source} has format version {shorten(version)}, but this version of xee_tf reads version "
            f"{ours}: use a newer xee_tf, or remove the file to have its content inferred."
        )
    try:
        manifest: Manifest = kinds[found].of(document)
        return manifest
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, OptionError) as error:
        what = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        raise ManifestError(
            f"{source} is not valid: {shorten(what, 200)}. Remove the file to have its content inferred."
        ) from None


def read_manifest(location: Location, size: int | None = None) -> Manifest | None:
    """Read the manifest at a location; return None if the file does not exist.

    `size` is the number of bytes of the file, if it is known from a listing.

    Raises
    ------
    ManifestError
        If the file is not valid, or was modified.
    """
    document = read_document(location, size)
    if document is None:
        return None
    manifest = manifest_of(document, str(location))
    if not is_unchanged(document):
        raise ManifestError(
            f"{location} was modified: its checksum does not match. Restore it, or remove it to have its "
            "content inferred."
        )
    return manifest


def read_document(location: Location, size: int | None = None) -> Any:
    """Read and parse the JSON of the manifest at a location; return None if the file does not exist."""
    text = _read(location, size)
    if text is None:
        return None
    try:
        document = parse_json(text, parse_float=_in_range, parse_constant=_no_number)
    except OverflowError as error:
        raise ManifestError(f"{location} is not valid: {shorten(str(error))}.") from None
    except (ValueError, RecursionError) as error:
        message = shorten(str(error))
        raise ManifestError(f"{location} is not a manifest: it is not JSON ({message}).") from None
    if document is None:
        raise ManifestError(f"{location} is not a manifest: it contains only null.")
    return document


def _in_range(text: str) -> float:
    """Parse a number; raise an error if it is out of range, because Python reads 1e999 as infinity."""
    if math.isinf(value := float(text)):
        raise OverflowError(f"{text} is out of range")
    return value


def _no_number(text: str) -> float:
    """Raise an error for NaN and infinities, which Python accepts although JSON does not allow them."""
    raise ValueError(f"{text} is not a valid number in JSON")


def parse_dimensions(text: str, source: str = "the file") -> ImageManifest:
    """Parse ``<prefix>-dimensions.json``, which version 0.1.0 wrote for array bands.

    Examples
    --------
    >>> import json
    >>> band = {"name": "ndvi", "feature": "ndvi", "first": 0, "dims": ["time"], "shape": [2]}
    >>> parse_dimensions(json.dumps({"record": "Example", "fill": 0, "bands": [band], "coords": {}})).kernel
    """
    try:
        document = parse_json(text)
        coords = {
            dim: {**coord, "dtype": "text" if coord["dtype"][1:2] == "U" else coord["dtype"]}
            for dim, coord in document["coords"].items()
        }
        return ImageManifest.of({**document, "coords": coords, "defaultValue": document["fill"]})
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise ManifestError(
            f"{source} is not a valid description of array bands "
            f"({type(error).__name__}: {shorten(str(error))}). "
            "Remove it to have their depths inferred."
        ) from None


def _read(location: Location, size: int | None) -> str | None:
    try:
        data = read_whole(location, size)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except Exception as error:
        # A store that does not permit listing refuses access to files that do not exist.
        if location.is_local or not is_inaccessible(error) or location.name in location.listed():
            raise
        return None
    if len(data) > _LARGEST:
        raise ManifestError(f"{location} has {len(data)} bytes; a manifest has at most {_LARGEST}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{location} is not UTF-8 text ({error.reason}).") from None
