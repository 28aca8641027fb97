"""The local server: TensorFlow Serving's, Vertex AI's and AI Platform's addresses over SavedModels."""
