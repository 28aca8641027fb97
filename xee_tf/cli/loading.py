"""Models in files, as commands name them."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import xee_tf
from xee_tf.storage import Location

__all__ = ["model_at"]

_LOADERS: dict[str, Any] = {
    ".keras": xee_tf.Model.from_keras,
    ".h5": xee_tf.Model.from_keras,
    ".onnx": xee_tf.Model.from_onnx,
}


def model_at(path: str, **options: Any) -> xee_tf.Model:
    """Create a model from a path or URL: by its suffix a file, otherwise the folder of a SavedModel.

    Examples
    --------
    >>> model_at("models/landcover.h5").connector.files.location.name
    'landcover.h5'
    """
    suffix = PurePath(Location.of(path).file_name).suffix
    model: xee_tf.Model = _LOADERS.get(suffix, xee_tf.Model.from_saved_model)(path, **options)
    return model
