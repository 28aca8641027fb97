"""`prepare_model`: what ``earthengine model prepare`` does, in TensorFlow 2."""

from xee_tf.prepare.model import PreparedModel, prepare_model

__all__ = ["PreparedModel", "prepare_model"]
