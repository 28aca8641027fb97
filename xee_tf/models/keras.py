"""Keras models from a file or in memory, exported as SavedModels."""

from __future__ import annotations

import hashlib
import io
import json
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from xee_tf.connector import DEFAULT_SIGNATURE, Connector, Signature, loaded_signature
from xee_tf.display import quoted
from xee_tf.errors import MissingModelError, ModelError, OptionError
from xee_tf.extras import extra
from xee_tf.identity import content_hash
from xee_tf.models.kinds import is_path, model_kind
from xee_tf.models.model_files import ModelFiles, missing_error
from xee_tf.models.saved_model import TensorFlowConnection, load_saved_model
from xee_tf.models.saved_model_files import read_signatures
from xee_tf.storage import PathLike

__all__ = ["ExportedKerasConnector", "KerasConnector", "keras_connector"]

_ZIP, _HDF5 = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n"  # the first bytes of such files


def keras_connector(path_or_model: Any, storage_options: Mapping[str, Any] | None = None) -> Connector:
    """Build the connector of a Keras file, or of a model in memory, which is exported now."""
    if is_path(path_or_model):
        return KerasConnector.of(path_or_model, storage_options)
    if storage_options is not None:
        raise OptionError("storage_options are those of a file, and the model is in memory: omit them.")
    return ExportedKerasConnector.of(path_or_model)


@dataclass(frozen=True)
class KerasConnector(Connector):
    """A Keras model in a ``.keras`` or ``.h5`` file.

    Custom layers must be registered with Keras in the process that opens it, as Keras itself requires.

    Parameters
    ----------
    files : ModelFiles
        The file, local or remote; each process that loads it copies a remote one.
    """

    files: ModelFiles

    @classmethod
    def of(cls, path: PathLike, storage_options: Mapping[str, Any] | None = None) -> KerasConnector:
        """Create a connector from a path, which may be relative, or a URL."""
        return cls(ModelFiles.of(path, storage_options))

    def __str__(self) -> str:
        return f"Keras model {self.files}"

    def open(self) -> TensorFlowConnection:
        """Load the file, export the model as a SavedModel and load that."""
        self._require_file()
        with extra("tensorflow", "A Keras model"):
            import keras

        with self.files.local_copy() as path:
            try:
                model = keras.saving.load_model(path, compile=False)
            except Exception as error:
                raise ModelError(self._explain(path, error)) from error
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            _export(model, folder, str(self))
            return load_saved_model(folder, str(self))

    def _explain(self, path: str, error: Exception) -> str:
        """Return why Keras cannot load the file; its own errors about other files are misleading."""
        if model_kind(path) != "keras":
            return (
                f"{self.files} is not a Keras file: expected a .keras or .h5 file. Rasters are passed to "
                "model.predict_image."
            )
        expected = _ZIP if path.lower().endswith(".keras") else _HDF5
        with open(path, "rb") as file:
            if file.read(len(expected)) != expected:
                return f"{self.files} is damaged, or is not a Keras file: save or copy it again."
        return f"Keras cannot load {self.files}: {error}"

    def content(self) -> str | None:
        """Hash configuration, weights and the user's own classes, without the date in a ``.keras`` file."""
        with self.files.local_copy() as path:
            return _content(path)

    def known_signature(self) -> Signature | None:
        """Return the signature if the model is loaded in this process."""
        return loaded_signature(self)

    def version(self) -> Hashable:
        """Return the modification time of a local file, or the state of a remote one."""
        return self.files.version()

    def pinned(self) -> KerasConnector:
        """Return a connector of the file that exists now, if it is remote."""
        self._require_file()
        return replace(self, files=self.files.pinned())

    def unpinned(self) -> KerasConnector:
        """Return a connector of whatever file is there."""
        return replace(self, files=self.files.unpinned())

    def _require_file(self) -> None:
        """Raise an error if there is no file; on a web server, this is known when the file is read."""
        location = self.files.location
        if location.is_web or location.is_file():
            return
        if location.child("saved_model.pb").exists():
            raise ModelError(f"{location} is a SavedModel, not a Keras file: use Model.from_saved_model.")
        if location.is_folder():
            names = quoted(location.entries(), 8)
            raise MissingModelError(f"There is no Keras file at {location}: it is a folder with {names}.")
        raise missing_error(location, "Keras file")


@dataclass(frozen=True)
class ExportedKerasConnector(Connector):
    """A Keras model exported from memory. Two connectors are equal if their exports are equal.

    Parameters
    ----------
    name : str
        The name of the model in reprs and errors.
    digest : str
        The SHA-256 hash of `archive`.
    archive : bytes
        The SavedModel as a tar archive.
    model_hash : str or None
        A hash of configuration and weights, which is the same for the same model in another run of a script.
    exported : Signature or None
        The signature of the export.
    """

    name: str
    digest: str
    archive: bytes = field(repr=False, compare=False)
    model_hash: str | None = field(default=None, repr=False, compare=False)
    exported: Signature | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, model: Any) -> ExportedKerasConnector:
        """Export a model.

        Raises
        ------
        ModelError
            If `model` is not a Keras model or has not been built.
        """
        if not callable(getattr(model, "export", None)):
            raise ModelError(
                f"Expected a Keras model or the path of a Keras file; got {type(model).__name__}. Use "
                "Model.from_function for a function or Model.from_saved_model for a SavedModel."
            )
        name = f"Keras model {getattr(model, 'name', type(model).__name__)!r}"
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            _export(model, folder, name)
            signature = read_signatures(folder).get(DEFAULT_SIGNATURE)
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                archive.add(folder, arcname=".")
        content = buffer.getvalue()
        return cls(name, hashlib.sha256(content).hexdigest(), content, content_hash(model), signature)

    def __str__(self) -> str:
        return self.name

    def signature(self) -> Signature:
        """Return the signature of the export, for which the model is not loaded."""
        return self.exported or super().signature()

    def known_signature(self) -> Signature | None:
        """Return the signature of the export."""
        return self.exported

    def content(self) -> str | None:
        """Return the hash of the model, or else of its export."""
        return self.model_hash or self.digest

    def open(self) -> TensorFlowConnection:
        """Load the exported model."""
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
                # Python 3.11 has filters, and the argument for them, only from 3.11.4 on.
                archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, path: member)
                archive.extractall(folder)
            return load_saved_model(folder, self.name)


def _content(path: str) -> str | None:
    """Hash a Keras file; see `KerasConnector.content`."""
    if not zipfile.is_zipfile(path):
        return content_hash(Path(path).read_bytes())
    with zipfile.ZipFile(path) as archive:
        names = sorted(set(archive.namelist()) - {"metadata.json", "config.json"})
        text = archive.read("config.json").decode()
        config = json.loads(text, object_pairs_hook=_without_addresses)
        weights = [(name, archive.read(name)) for name in names]
    keras = sys.modules.get("keras")
    known = {} if keras is None else keras.saving.get_custom_objects()
    return content_hash((config, weights, {name: known[name] for name in sorted(known) if name in text}))


def _without_addresses(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Remove the IDs of shared objects from a configuration: Keras uses their memory addresses."""
    return {name: value for name, value in pairs if name != "shared_object_id"}


def _export(model: Any, folder: str, name: str) -> None:
    try:
        model.export(folder, verbose=False)
    except ValueError as error:
        raise ModelError(
            f"{name} cannot be exported: {error} Build it first: call it on data, or define it with "
            "keras.Input."
        ) from error
