"""Prepare models for Earth Engine in TensorFlow 2, as ``earthengine model prepare`` does in TensorFlow 1."""

from xee_tf.prepare.model import PreparedModel, prepare_model
from xee_tf.prepare.nodes import NodesLike

__all__ = [
    "NodesLike",
    "PreparedModel",
    "prepare_model",
]
