"""What goes over the wire to a model and back: the six payload formats, without TensorFlow."""
