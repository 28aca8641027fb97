"""Models in TensorFlow's SavedModel format, with a connection for each signature."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.connector import DEFAULT_SIGNATURE, Arrays, Connector, Signature, TensorInfo, loaded_signature
from xee_tf.display import quoted
from xee_tf.errors import ModelError, PredictionError, XeeTFError, shorten
from xee_tf.extras import extra, require
from xee_tf.identity import content_hash
from xee_tf.models.model_files import ModelFiles
from xee_tf.models.saved_model_files import read_signatures, require_saved_model
from xee_tf.storage import PathLike

__all__ = [
    "SavedModelConnector",
    "TensorFlowConnection",
    "load_saved_model",
    "load_signatures",
    "tensorflow_message",
]

_QUICKLY_READ = 64 << 20  # bytes of a file that the repr of a model reads


@dataclass(frozen=True)
class SavedModelConnector(Connector):
    """A signature of a SavedModel, which is called directly on batches.

    Parameters
    ----------
    files : ModelFiles
        The folder, local or remote; each process that loads it copies a remote one.
    signature_name : str, default "serving_default"
        The signature that is called.
    tag : str, default "serve"
        The tag of the graph that is loaded.
    """

    files: ModelFiles
    signature_name: str = DEFAULT_SIGNATURE
    tag: str = "serve"

    @classmethod
    def of(
        cls,
        path: PathLike,
        signature: str = DEFAULT_SIGNATURE,
        tag: str = "serve",
        storage_options: Mapping[str, Any] | None = None,
    ) -> SavedModelConnector:
        """Create a connector from a path, which may be relative, or a URL."""
        return cls(ModelFiles.of(path, storage_options), signature, tag)

    def __str__(self) -> str:
        named = "" if self.signature_name == DEFAULT_SIGNATURE else f", signature {self.signature_name!r}"
        return f"SavedModel {self.files}{named}"

    def open(self) -> TensorFlowConnection:
        """Load the model with its weights."""
        require_saved_model(self.files.location)
        with self.files.local_copy() as path:
            return load_saved_model(path, str(self), self.signature_name, self.tag)

    def signature(self) -> Signature:
        """Read the signature from the file, without the weights and without importing TensorFlow."""
        require_saved_model(self.files.location)
        require("tensorflow", "A SavedModel", "tensorflow")
        known = read_signatures(self.files.location, self.tag)
        if self.signature_name not in known:
            raise _signature_error(str(self), self.signature_name, list(known))
        return known[self.signature_name]

    def known_signature(self) -> Signature | None:
        """Read it from a local file that is not very large; otherwise return that of the loaded model."""
        try:
            file = self.files.location.child("saved_model.pb")
            if file.is_local and file.size() <= _QUICKLY_READ:
                return read_signatures(self.files.location, self.tag).get(self.signature_name)
        except XeeTFError:
            return None
        return loaded_signature(self)

    def version(self) -> Hashable:
        """Return the modification times of local files, or the state of remote ones."""
        return self.files.version(("saved_model.pb", "variables/variables.index"))

    def pinned(self) -> SavedModelConnector:
        """Return a connector of the files that exist now, if they are remote."""
        require_saved_model(self.files.location)
        return replace(self, files=self.files.pinned())

    def unpinned(self) -> SavedModelConnector:
        """Return a connector of whatever files are there."""
        return replace(self, files=self.files.unpinned())

    def content(self) -> str | None:
        """Hash the files, local or remote, except the fingerprint, which contains a random number."""
        return content_hash((self.files.digest({"fingerprint.pb"}), self.signature_name, self.tag))


class TensorFlowConnection:
    """A concrete TensorFlow function, called with whole batches of named tensors. It is thread-safe.

    The number of TensorFlow's own threads is not changed: two workers of two threads each are then no slower
    on two cores than one worker of one thread. Limiting TensorFlow to the threads of the Dask worker made a
    worker of one thread take 1.7 times as long, and did not help elsewhere (measured with convolutions).

    `keep` references objects that the function needs but does not reference: the variables of a loaded model.
    """

    def __init__(
        self, function: Callable[..., Mapping[str, Any]], signature: Signature, name: str, keep: Any
    ) -> None:
        self._function, self.signature, self._name, self._keep = function, signature, name, keep

    def predict(self, batch: Arrays) -> dict[str, npt.NDArray[Any]]:
        """Run the model; see `xee_tf.connector.Connection.predict`."""
        with extra("tensorflow", "A SavedModel"):
            import tensorflow as tf

        self.signature.check_inputs(batch, self._name)
        try:
            outputs = self._function(**{name: tf.constant(values) for name, values in batch.items()})
            return {name: _array(tensor) for name, tensor in outputs.items()}
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise PredictionError(tensorflow_message(error)) from None

    def close(self) -> None:
        """Do nothing: TensorFlow frees a model with the last reference to it."""


def load_signatures(path: str, name: str, tag: str = "serve") -> dict[str, TensorFlowConnection]:
    """Load a local SavedModel once and return its signatures; `name` is its name in errors.

    Raises
    ------
    ModelError
        If the model cannot be loaded or has no signatures.
    """
    with extra("tensorflow", "A SavedModel"):
        import tensorflow as tf

    try:
        loaded = tf.saved_model.load(path, tags=[tag])
    except Exception as error:  # of any kind, if the files are damaged
        raise ModelError(f"{name} cannot be loaded with the tag {tag!r}: {error}") from None
    if not loaded.signatures:
        raise _signature_error(name, DEFAULT_SIGNATURE, [])

    def read(tensors: Any) -> dict[str, TensorInfo]:
        return {key: _tensor_info(tensors[key].dtype, tensors[key].shape) for key in sorted(tensors)}

    found = {}
    for key, function in loaded.signatures.items():
        signature = Signature(read(function.structured_input_signature[1]), read(function.structured_outputs))
        found[key] = TensorFlowConnection(function, signature, name, keep=loaded)
    return found


def load_saved_model(
    path: str, name: str, signature_name: str = DEFAULT_SIGNATURE, tag: str = "serve"
) -> TensorFlowConnection:
    """Load a local SavedModel and return one of its signatures.

    Raises
    ------
    ModelError
        If the model cannot be loaded or does not have the signature.
    """
    found = load_signatures(path, name, tag)
    if signature_name not in found:
        raise _signature_error(name, signature_name, list(found))
    return found[signature_name]


def _signature_error(model: str, name: str, known: list[str]) -> ModelError:
    if known:
        return ModelError(f"{model} has no signature {name!r}; available: {quoted(sorted(known))}.")
    return ModelError(
        f"{model} has no signatures, so its inputs have no names. Export a Keras model with "
        "model.export('folder'); for a tf.Module, pass signatures= to tf.saved_model.save."
    )


def tensorflow_message(error: Exception) -> str:
    """Return the message of a TensorFlow error in one line, without the graph that follows it."""
    text = getattr(error, "message", None) or str(error)
    lines = [line for line in text.splitlines() if line.strip()]
    return shorten(" ".join(" ".join(lines[:6]).split()), 600)


def _tensor_info(dtype: Any, shape: Any) -> TensorInfo:
    """Convert the ``DType`` and ``TensorShape`` of a TensorFlow tensor."""
    numpy_dtype = np.dtype(dtype.as_numpy_dtype)
    return TensorInfo(numpy_dtype, None if shape.rank is None else tuple(shape.as_list()))


def _array(tensor: Any) -> npt.NDArray[Any]:
    """Return the values of a tensor. Numbers of numpy's own dtypes are not copied, and read-only."""
    plain = np.dtype(tensor.dtype.as_numpy_dtype).kind in "biuf"
    return np.asarray(memoryview(tensor)) if plain else tensor.numpy()
