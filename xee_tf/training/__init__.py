"""Read exports as `tf.data` pipelines for training."""

from xee_tf.training.dataset import tf_dataset
from xee_tf.training.spec import feature_spec

__all__ = ["feature_spec", "tf_dataset"]
