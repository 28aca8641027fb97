"""Records as `tf.data` pipelines for training."""

from xee_tf.training.dataset import feature_spec, tf_dataset

__all__ = [
    "feature_spec",
    "tf_dataset",
]
