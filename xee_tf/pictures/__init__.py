"""Pictures of patches and of the sides of a split, drawn with Matplotlib."""

from xee_tf.pictures.sheet import show_patches
from xee_tf.pictures.sources import Batch
from xee_tf.pictures.splits import show_split

__all__ = ["Batch", "show_patches", "show_split"]
