"""The files of an ONNX model: the model itself, and files next to it that hold its weights."""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Hashable, Iterator
from functools import lru_cache

from xee_tf.display import quoted
from xee_tf.errors import MissingModelError, ModelError, RecordError
from xee_tf.identity import content_hash
from xee_tf.models.model_files import ModelFiles, missing_error
from xee_tf.storage import Location
from xee_tf.wire import bodies, delimited_fields, text

__all__ = ["external_files", "files_digest", "files_version", "inner_name"]

_SUFFIX = ".onnx"
# Numbers of fields in onnx.proto: ModelProto.graph, GraphProto.initializer, TensorProto.external_data, and
# the key and value of its entries.
_GRAPH, _INITIALIZER, _EXTERNAL_DATA, _KEY, _VALUE = 7, 5, 13, 1, 2


def inner_name(location: Location) -> str:
    """Return the name of the ONNX file in a folder, or "" if `location` is a file.

    Raises
    ------
    MissingModelError
        If there is no ONNX file.
    ModelError
        If a folder contains several, or is a SavedModel.

    Examples
    --------
    >>> Location.of("memory://model/crops.onnx").write_bytes(b"")
    >>> Location.of("memory://model/crops.onnx.data").write_bytes(b"")
    >>> inner_name(Location.of("memory://model"))
    'crops.onnx'
    """
    if location.is_web or location.is_file():  # on a web server, this is known when the file is read
        return ""
    if not location.is_folder():
        raise missing_error(location, "ONNX file")
    entries = location.entries()
    names = [name for name in entries if name.endswith(_SUFFIX)]
    if len(names) == 1:
        return names[0]
    if names:
        raise ModelError(
            f"{location} has several ONNX files, {quoted(names, 8)}: pass the path of one of them."
        )
    if "saved_model.pb" in entries:
        raise ModelError(f"{location} is a SavedModel, not an ONNX model: use Model.from_saved_model.")
    held = f"a folder with {quoted(list(entries), 8)}" if entries else "an empty folder"
    raise MissingModelError(f"There is no ONNX file at {location}: it is {held}.")


def external_files(path: str) -> tuple[str, ...]:
    """Return the paths of the files that hold the weights of a local ONNX file, relative to its folder."""
    try:
        state = os.stat(path)
    except OSError:  # opening the file reports it
        return ()
    return _external_files(path, state.st_mtime_ns, state.st_size)


def files_version(files: ModelFiles) -> Hashable:
    """Return a value that changes when one of the files is replaced; see `ModelFiles.version`."""
    if not files.location.is_local:
        return files.version()
    path = files.location.path
    if os.path.isdir(path):
        return files.version(sorted(os.listdir(path)))
    return files.version(), tuple(_modified_time(weights) for weights in _weights(path))


def files_digest(files: ModelFiles) -> str | None:
    """Return a hash of the names and contents of the files."""
    weights = _weights(files.location.path) if files.location.is_local else []
    return content_hash((files.digest(), [_digest(path) for path in weights])) if weights else files.digest()


def _weights(path: str) -> list[str]:
    return [os.path.join(os.path.dirname(path), name) for name in external_files(path)]


# Names in a file can be anything. Opening the model reports files that are missing.
def _modified_time(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns
    except (OSError, ValueError):
        return None


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


@lru_cache(64)
def _external_files(path: str, modified: int, size: int) -> tuple[str, ...]:
    """Read the names from a file, which is not read again before it changes. The weights are skipped."""
    if not size or not os.path.isfile(path):
        return ()
    with open(path, "rb") as file:
        # Closed with the last view of it.
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    try:
        return tuple(dict.fromkeys(_locations(memoryview(data))))
    except RecordError:  # not an ONNX file: opening it reports that
        return ()


def _locations(model: memoryview) -> Iterator[str]:
    for graph in bodies(model, _GRAPH):
        for tensor in bodies(graph, _INITIALIZER):
            for entry in bodies(tensor, _EXTERNAL_DATA):
                fields = dict(delimited_fields(entry))
                if bytes(fields.get(_KEY, b"")) == b"location" and _VALUE in fields:
                    yield text(fields[_VALUE], "The name of a file")
