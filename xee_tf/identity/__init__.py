"""What Python objects are by their content, whatever process they are in."""

from xee_tf.identity.content import content_hash

__all__ = ["content_hash"]
