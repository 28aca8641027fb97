"""`prepare_model`: what ``earthengine model prepare`` does, in TensorFlow 2."""
