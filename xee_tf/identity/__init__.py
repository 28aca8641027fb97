"""Hashes of Python objects by content, independent of the process."""

from xee_tf.identity.content import content_hash

__all__ = ["content_hash"]
