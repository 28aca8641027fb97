"""From TFRecord and a mixer back to pixels: lazy rasters, and `tf.data` pipelines."""
