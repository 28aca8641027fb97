"""Hashes of Python objects by content, independent of the process."""

from xee_tf.identity.content import content_hash
from xee_tf.identity.files import UnknownContentError
from xee_tf.identity.graphs import input_hash, input_hasher

__all__ = ["UnknownContentError", "content_hash", "input_hash", "input_hasher"]
