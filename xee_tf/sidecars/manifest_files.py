"""Read and parse manifest files."""

from __future__ import annotations

import json
import math
from typing import Any

from xee_tf.errors import ManifestError, OptionError, shorten
from xee_tf.sidecars.manifest import FORMAT_VERSION, ImageManifest, Manifest, TableManifest
from xee_tf.storage import Location, is_inaccessible

__all__ = ["manifest_of", "parse_dimensions", "parse_manifest", "read_document", "read_manifest"]

_LARGEST = 1 << 30  # maximum size of a manifest in bytes


def parse_manifest(text: str, source: str = "the manifest") -> Manifest:
    """Parse the JSON of an image or table manifest.

    Examples
    --------
    >>> parse_manifest('{"format": "xee_tf image", "formatVersion": "2.0"}', "scene-image.tfexport")
    Traceback (most recent call last):
    ...
    xee_tf.errors.ManifestError: scene-image.tfexport has format version 2.0, but this version of xee_tf \
reads version 1: use a newer xee_tf, or remove the file to have its content inferred.
    """
    return manifest_of(_parse(text, source), source)


def manifest_of(document: Any, source: str = "the manifest") -> Manifest:
    """Create a manifest from a parsed document; see `parse_manifest`."""
    kinds: dict[Any, Any] = {"xee_tf image": ImageManifest, "xee_tf table": TableManifest}
    found = document.get("format") if isinstance(document, dict) else None
    if not isinstance(found, str) or found not in kinds:
        raise ManifestError(
            f'{source} is not a manifest: expected "format": "xee_tf image" or "xee_tf table"; '
            f"got {shorten(repr(found))}."
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


def read_manifest(location: Location) -> Manifest | None:
    """Read the manifest at a location; return None if the file does not exist."""
    document = read_document(location)
    return None if document is None else manifest_of(document, str(location))


def read_document(location: Location) -> Any:
    """Read and parse the JSON of the manifest at a location; return None if the file does not exist."""
    text = _read(location)
    return None if text is None else _parse(text, str(location))


def _parse(text: str, source: str) -> Any:
    try:
        return json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{source} is not a manifest: it is not JSON ({shorten(str(error))}).") from None


def _finite(text: str) -> float:
    """Parse a finite number; JSON does not allow NaN or infinity, but Python accepts them, and 1e999."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a valid JSON number")
    return value


def parse_dimensions(text: str, source: str = "the file") -> ImageManifest:
    """Parse ``<prefix>-dimensions.json``, which version 0.1.0 wrote for array bands.

    Examples
    --------
    >>> band = {"name": "ndvi", "feature": "ndvi", "first": 0, "dims": ["time"], "shape": [2]}
    >>> parse_dimensions(json.dumps({"record": "Example", "fill": 0, "bands": [band], "coords": {}})).kernel
    """
    try:
        document = json.loads(text)
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


def _read(location: Location) -> str | None:
    try:
        data = location.read_bytes()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except Exception as error:
        if location.is_local or not is_inaccessible(error):
            raise
        return None
    if len(data) > _LARGEST:
        raise ManifestError(f"{location} has {len(data)} bytes; a manifest has at most {_LARGEST}.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"{location} is not UTF-8 text ({error.reason}).") from None
