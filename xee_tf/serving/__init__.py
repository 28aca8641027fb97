"""A local server of SavedModels with the interfaces of TensorFlow Serving, Vertex AI and AI Platform."""

from xee_tf.serving.access import LOGGER
from xee_tf.serving.server import Server, serve, stop_signal

__all__ = ["LOGGER", "Server", "serve", "stop_signal"]
