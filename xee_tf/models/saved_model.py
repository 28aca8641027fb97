"""A model on disk in TensorFlow's SavedModel format."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from xee_tf.connector import Connector, Signature
from xee_tf.errors import ModelError
from xee_tf.identity import content_hash
from xee_tf.models.saved_model_files import local_copy, read_meta_graph, require_saved_model
from xee_tf.models.tensorflow import TensorFlowConnection, tensor_info
from xee_tf.storage import Location, PathLike

__all__ = ["SavedModelConnector", "load_saved_model", "load_signatures"]


@dataclass(frozen=True)
class SavedModelConnector(Connector):
    """A SavedModel, of which one signature is called directly on batches.

    Parameters
    ----------
    path : str
        Its folder, absolute, or a URL of it; a remote one is fetched by each process.
    signature_name : str
    tag : str
        Of the graph that is loaded.
    """

    path: str
    signature_name: str = "serving_default"
    tag: str = "serve"

    @classmethod
    def of(
        cls, path: PathLike, signature: str = "serving_default", tag: str = "serve"
    ) -> SavedModelConnector:
        """From a path as users write it."""
        text = str(path)
        # Workers may run in other folders.
        return cls(text if "://" in text else os.path.abspath(os.path.expanduser(text)), signature, tag)

    def __str__(self) -> str:
        named = "" if self.signature_name == "serving_default" else f", signature {self.signature_name!r}"
        return f"SavedModel {self.path}{named}"

    def open(self) -> TensorFlowConnection:
        """Load it, with its weights."""
        folder = Location.of(self.path)
        require_saved_model(folder)
        with local_copy(folder) as path:
            return load_saved_model(path, str(self), self.signature_name, self.tag)

    def signature(self) -> Signature:
        """The signature as its file says it, without the weights."""
        require_saved_model(Location.of(self.path))
        import tensorflow as tf

        known = {
            name: found
            for name, found in read_meta_graph(self.path, self.tag).signature_def.items()
            if not name.startswith("__")
        }
        if self.signature_name not in known:
            raise _no_signature(str(self), self.signature_name, list(known))

        def read(tensors: Any) -> dict[str, Any]:
            return {
                name: tensor_info(
                    tf.as_dtype(tensors[name].dtype), tf.TensorShape(tensors[name].tensor_shape)
                )
                for name in sorted(tensors)
            }

        return Signature(read(known[self.signature_name].inputs), read(known[self.signature_name].outputs))

    def version(self) -> Hashable:
        """When its files were written, where that is cheap to tell."""
        if not self._is_local:
            return None
        return tuple(
            _written(f"{self.path}/{name}") for name in ("saved_model.pb", "variables/variables.index")
        )

    def content(self) -> str | None:
        """Its files, wherever they are; the fingerprint beside them holds a random number."""
        folder = Location.of(self.path)
        found = hashlib.sha256()
        for path in sorted(folder.fs.find(folder.path)):
            name = path[len(folder.path) :].strip("/")
            if name == "fingerprint.pb":
                continue
            found.update(f"{name}\0".encode())
            with folder.fs.open(path, "rb") as file:
                found.update(hashlib.file_digest(file, "sha256").digest())
        return content_hash((found.hexdigest(), self.signature_name, self.tag))

    @property
    def _is_local(self) -> bool:
        return "://" not in self.path


def load_signatures(path: str, name: str, tag: str = "serve") -> dict[str, TensorFlowConnection]:
    """Load a local SavedModel, once for all of its signatures.

    Parameters
    ----------
    path : str
    name : str
        What it is called in errors.
    tag : str
        Of the graph that is loaded.

    Raises
    ------
    ModelError
        If it cannot be loaded, or has no signatures.
    """
    import tensorflow as tf

    try:
        loaded = tf.saved_model.load(path, tags=[tag])
    except (tf.errors.OpError, ValueError, RuntimeError, OSError, KeyError) as error:
        raise ModelError(f"{name} cannot be loaded with the tag {tag!r}: {error}") from None
    if not loaded.signatures:
        raise _no_signature(name, "serving_default", [])

    def read(tensors: Any) -> dict[str, Any]:
        return {key: tensor_info(tensors[key].dtype, tensors[key].shape) for key in sorted(tensors)}

    found = {}
    for key, function in loaded.signatures.items():
        signature = Signature(read(function.structured_input_signature[1]), read(function.structured_outputs))
        found[key] = TensorFlowConnection(function, signature, name, keep=loaded)
    return found


def load_saved_model(
    path: str, name: str, signature_name: str = "serving_default", tag: str = "serve"
) -> TensorFlowConnection:
    """Load a local SavedModel and take one of its signatures.

    Raises
    ------
    ModelError
        If it cannot be loaded, or has no such signature.
    """
    found = load_signatures(path, name, tag)
    if signature_name not in found:
        raise _no_signature(name, signature_name, list(found))
    return found[signature_name]


def _written(file: str) -> int | None:
    try:
        return os.stat(file).st_mtime_ns
    except OSError:
        return None


def _no_signature(model: str, wanted: str, known: list[str]) -> ModelError:
    if known:
        return ModelError(f"{model} has no signature {wanted!r}; it has {sorted(known)}.")
    return ModelError(
        f"{model} has no signatures, so that its inputs have no names. Keras 3 writes one with "
        "model.export('folder'); for a tf.Module pass signatures= to tf.saved_model.save."
    )
