"""Records as `tf.data` pipelines for training."""
