"""Models in the ONNX format, from a file or in memory, which are run by onnxruntime."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from xee_tf.connector import Connector, Signature, connected, loaded_signature
from xee_tf.display import quoted
from xee_tf.errors import ModelError, OptionError
from xee_tf.identity import content_hash
from xee_tf.models.kinds import is_path
from xee_tf.models.model_files import ModelFiles
from xee_tf.models.onnx_files import external_files, files_digest, files_version, inner_name
from xee_tf.models.onnx_session import OnnxConnection, OnnxRuntime, open_onnx
from xee_tf.storage import PathLike

__all__ = ["OnnxBytesConnector", "OnnxConnector", "onnx_connector", "onnx_order", "order_hint"]


@dataclass(frozen=True)
class OnnxConnector(Connector):
    """An ONNX file.

    Parameters
    ----------
    files : ModelFiles
        The file, or a folder with one ``.onnx`` file and the files of its weights, local or remote; each
        process that loads it copies remote files.
    runtime : OnnxRuntime
        How it is run.
    """

    files: ModelFiles
    runtime: OnnxRuntime

    @classmethod
    def of(
        cls, path: PathLike, storage_options: Mapping[str, Any] | None = None, **options: Any
    ) -> OnnxConnector:
        """Create a connector from a path, which may be relative, or a URL; options as in `OnnxRuntime.of`."""
        return cls(ModelFiles.of(path, storage_options), OnnxRuntime.of(**options))

    def __str__(self) -> str:
        return f"ONNX model {self.files}"

    def open(self) -> OnnxConnection:
        """Load the file."""
        name = inner_name(self.files.location)
        with self.files.local_copy() as path:
            file = os.path.join(path, name) if name else path
            if not (self.files.location.is_local or name) and (weights := external_files(file)):
                raise ModelError(
                    f"{self} has its weights in other files, {quoted(weights, 8)}: pass the URL of the "
                    "folder that contains all of them, and no other model, or save the model as one file "
                    "(with external_data=False in torch.onnx.export)."
                )
            return open_onnx(file, str(self), self.runtime)

    def signature(self) -> Signature:
        """Return the signature of the loaded model."""
        return _signature(self)

    def known_signature(self) -> Signature | None:
        """Return the signature if the model is loaded in this process."""
        return _loaded_signature(self)

    def version(self) -> Hashable:
        """Return the modification times of local files, or the state of remote ones."""
        return files_version(self.files)

    def pinned(self) -> OnnxConnector:
        """Return a connector of the files that exist now, if they are remote."""
        inner_name(self.files.location)
        return replace(self, files=self.files.pinned())

    def unpinned(self) -> OnnxConnector:
        """Return a connector of whatever files are there."""
        return replace(self, files=self.files.unpinned())

    def content(self) -> str | None:
        """Hash the files, local or remote, and the order of axes."""
        inner_name(self.files.location)
        return content_hash((files_digest(self.files), self.runtime.axes))


@dataclass(frozen=True)
class OnnxBytesConnector(Connector):
    """An ONNX model in memory. Two connectors are equal if their models are equal.

    Parameters
    ----------
    name : str
        The name of the model in reprs and errors.
    digest : str
        The SHA-256 hash of `model`.
    model : bytes
        The serialized ``ModelProto``.
    runtime : OnnxRuntime
        How it is run.
    """

    name: str
    digest: str
    model: bytes = field(repr=False, compare=False)
    runtime: OnnxRuntime

    @classmethod
    def of(cls, model: Any, **options: Any) -> OnnxBytesConnector:
        """Create a connector from bytes or an ``onnx.ModelProto``; options as in `OnnxRuntime.of`.

        Raises
        ------
        ModelError
            If `model` is neither.
        """
        data = model.SerializeToString() if hasattr(model, "SerializeToString") else model
        if not isinstance(data, bytes):
            raise ModelError(
                f"Expected the path of an ONNX file, an onnx.ModelProto or its bytes; got "
                f"{type(model).__name__}. Export a PyTorch model with torch.onnx.export, and convert one of "
                "scikit-learn with skl2onnx.to_onnx."
            )
        digest = hashlib.sha256(data).hexdigest()
        name = getattr(getattr(model, "graph", None), "name", "") or digest[:8]
        return cls(f"ONNX model {name!r}", digest, data, OnnxRuntime.of(**options))

    def __str__(self) -> str:
        return self.name

    def open(self) -> OnnxConnection:
        """Load the model."""
        return open_onnx(self.model, self.name, self.runtime)

    def signature(self) -> Signature:
        """Return the signature of the loaded model."""
        return _signature(self)

    def known_signature(self) -> Signature | None:
        """Return the signature if the model is loaded in this process."""
        return _loaded_signature(self)

    def content(self) -> str | None:
        """Hash the model and the order of axes."""
        return content_hash((self.digest, self.runtime.axes))


def onnx_connector(
    path_or_model: Any, storage_options: Mapping[str, Any] | None = None, **options: Any
) -> Connector:
    """Build the connector of an ONNX file or a model in memory; options as in `OnnxRuntime.of`."""
    if is_path(path_or_model):
        return OnnxConnector.of(path_or_model, storage_options, **options)
    if storage_options is not None:
        raise OptionError("storage_options are those of a file, and the model is in memory: omit them.")
    return OnnxBytesConnector.of(path_or_model, **options)


def onnx_order(connector: Connector) -> str | None:
    """Return the order of the axes of an ONNX model; None for other models, whose channels are last."""
    if not isinstance(connector, OnnxConnector | OnnxBytesConnector):
        return None
    order: str = _reading(connector).order
    return order


def order_hint(connector: Connector) -> str:
    """Return how the axes of an ONNX model are read, for an error about its tiles; empty for others."""
    order = onnx_order(connector)
    if order is None:
        return ""
    shown = "channels first" if order.startswith("NC") else "channels last" if order.endswith("C") else order
    return f" Its axes are read as {shown}: if they have another order, pass it, such as channels='NTCHW'."


def _signature(connector: OnnxConnector | OnnxBytesConnector) -> Signature:
    signature: Signature = _reading(connector).signature
    return signature


def _loaded_signature(connector: OnnxConnector | OnnxBytesConnector) -> Signature | None:
    return loaded_signature(_reader(connector)) or loaded_signature(connector)


def _reading(connector: OnnxConnector | OnnxBytesConnector) -> Any:
    """Return a connection that describes the model; unless it needs other devices, the one that predicts."""
    return connected(_reader(connector))


def _reader(connector: OnnxConnector | OnnxBytesConnector) -> Connector:
    return replace(connector, runtime=connector.runtime.for_signature())
