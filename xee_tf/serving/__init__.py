"""The local server: TensorFlow Serving's, Vertex AI's and AI Platform's addresses over SavedModels."""

from xee_tf.serving.server import Server, serve, stop_signal

__all__ = ["Server", "serve", "stop_signal"]
