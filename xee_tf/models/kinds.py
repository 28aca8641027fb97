"""The kind of a model in a file, by its name."""

from __future__ import annotations

import os
import posixpath
from typing import Any, Literal

__all__ = ["ModelKind", "is_path", "model_kind"]

ModelKind = Literal["keras", "onnx", "mlm", "pytorch", "pickle"]
"""What a file contains; "mlm" is a STAC item that describes a model."""

_KINDS: dict[str, ModelKind] = {
    **dict.fromkeys((".keras", ".h5", ".hdf5"), "keras"),
    ".onnx": "onnx",
    ".json": "mlm",
    **dict.fromkeys((".pt", ".pth", ".pt2", ".ckpt", ".safetensors"), "pytorch"),
    **dict.fromkeys((".pkl", ".pickle", ".joblib"), "pickle"),
}


def model_kind(path: Any) -> ModelKind | None:
    """Return the kind of a model by the suffix of its path or URL; None for others, such as SavedModels.

    Examples
    --------
    >>> model_kind("models/A.ONNX"), model_kind("https://models.example.org/a.h5?key=1.onnx"), model_kind("a")
    ('onnx', 'keras', None)
    """
    text = str(path)
    if "://" in text:
        text = text.partition("?")[0]
    return _KINDS.get(posixpath.splitext(text.lower())[1])


def is_path(value: Any) -> bool:
    """Return whether a value is a path or URL; a UPath need not be an `os.PathLike`."""
    return isinstance(value, str | os.PathLike) or hasattr(value, "storage_options")
