"""Keras models, from a file or alive: exported once as a SavedModel, and called as one."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
import zipfile
from collections.abc import Hashable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from xee_tf.connector import Connector
from xee_tf.errors import MissingModelError, ModelError
from xee_tf.extras import extra
from xee_tf.identity import content_hash
from xee_tf.models.saved_model import TensorFlowConnection, load_saved_model, time_written
from xee_tf.storage import Location, PathLike

__all__ = ["ExportedKerasConnector", "KerasConnector", "keras_connector"]


def keras_connector(path_or_model: Any) -> Connector:
    """The connector of a Keras file, or of a live model, which is exported now."""
    if isinstance(path_or_model, str | os.PathLike):
        return KerasConnector.of(path_or_model)
    return ExportedKerasConnector.of(path_or_model)


@dataclass(frozen=True)
class KerasConnector(Connector):
    """A model in a file that Keras wrote (``.keras``, ``.h5``).

    Custom layers must be registered with Keras where it is opened, as Keras itself wants.

    Parameters
    ----------
    path : str
        Absolute.
    """

    path: str

    @classmethod
    def of(cls, path: PathLike) -> KerasConnector:
        """From a path as users write it."""
        return cls(Location.of(path).url)

    def __str__(self) -> str:
        return f"Keras model {self.path}"

    def open(self) -> TensorFlowConnection:
        """Load and export it."""
        file = Path(self.path)
        if (file / "saved_model.pb").is_file():
            raise ModelError(f"{self.path} is a SavedModel: open it with Model.from_saved_model.")
        if not file.is_file():
            there = f"a folder with {sorted(os.listdir(file))[:8]}" if file.is_dir() else "nothing"
            raise MissingModelError(f"There is no Keras file at {self.path}: {there} is there.")
        with extra("tensorflow", "A Keras model"):
            import keras

        try:
            model = keras.saving.load_model(self.path, compile=False)
        except Exception as error:
            raise ModelError(f"Keras cannot load {self.path}: {error}") from error
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            _export(model, folder, str(self))
            return load_saved_model(folder, str(self))

    def content(self) -> str | None:
        """Configuration and weights; of a ``.keras`` file not the date when it was saved."""
        if not zipfile.is_zipfile(self.path):
            return content_hash(Path(self.path).read_bytes())
        with zipfile.ZipFile(self.path) as archive:
            names = sorted(set(archive.namelist()) - {"metadata.json", "config.json"})
            config = json.loads(archive.read("config.json"), object_pairs_hook=_without_addresses)
            return content_hash((config, [(name, archive.read(name)) for name in names]))

    def version(self) -> Hashable:
        """When the file was written."""
        return time_written(self.path)


@dataclass(frozen=True)
class ExportedKerasConnector(Connector):
    """A live Keras model as it was when this was made; two are equal if their exports are.

    Parameters
    ----------
    name : str
    digest : str
        SHA-256 of `archive`.
    archive : bytes
        A tar of its SavedModel.
    described : str or None
        The hash of its configuration and weights, which a model made again by the same script has too.
    """

    name: str
    digest: str
    archive: bytes = field(repr=False, compare=False)
    described: str | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(cls, model: Any) -> ExportedKerasConnector:
        """Export a model.

        Raises
        ------
        ModelError
            If it is no Keras model, or was never built.
        """
        if not callable(getattr(model, "export", None)):
            raise ModelError(
                f"A Keras model or the path of its file is wanted; got {type(model).__name__}. A function "
                "goes to Model.from_function, the folder of a SavedModel to Model.from_saved_model."
            )
        name = f"Keras model {getattr(model, 'name', type(model).__name__)!r}"
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            _export(model, folder, name)
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as archive:
                archive.add(folder, arcname=".")
        content = buffer.getvalue()
        return cls(name, hashlib.sha256(content).hexdigest(), content, content_hash(model))

    def __str__(self) -> str:
        return self.name

    def content(self) -> str | None:
        """See `Connector.content`."""
        return self.described or self.digest

    def open(self) -> TensorFlowConnection:
        """Load the exported model."""
        with tempfile.TemporaryDirectory(prefix="xee-tf-") as folder:
            with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
                archive.extractall(folder, filter="data")
            return load_saved_model(folder, self.name)


def _without_addresses(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A part of a configuration; Keras numbers shared objects by their addresses in memory."""
    return {name: value for name, value in pairs if name != "shared_object_id"}


def _export(model: Any, folder: str, name: str) -> None:
    try:
        model.export(folder, verbose=False)
    except ValueError as error:
        raise ModelError(
            f"{name} cannot be exported: {error} A model is built once it was called, or was given "
            "keras.Input."
        ) from error
