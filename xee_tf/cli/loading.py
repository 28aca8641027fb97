"""Models in files, as commands name them."""

from __future__ import annotations

from typing import Any

import xee_tf
from xee_tf.models import model_kind

__all__ = ["model_at"]

_LOADERS: dict[str | None, Any] = {
    "keras": xee_tf.Model.from_keras,
    "onnx": xee_tf.Model.from_onnx,
    "mlm": xee_tf.Model.from_mlm,
}


def model_at(path: str, **options: Any) -> xee_tf.Model:
    """Create a model from a path or URL: by its suffix a file, otherwise the folder of a SavedModel.

    Examples
    --------
    >>> model_at("models/landcover.h5").connector.files.location.name
    'landcover.h5'
    """
    model: xee_tf.Model = _LOADERS.get(model_kind(path), xee_tf.Model.from_saved_model)(path, **options)
    return model
