"""A local server of SavedModels with the interfaces of TensorFlow Serving, Vertex AI and AI Platform."""

from xee_tf.serving.server import Server, serve, stop_signal

__all__ = ["Server", "serve", "stop_signal"]
