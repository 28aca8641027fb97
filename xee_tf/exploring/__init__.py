"""Maps in notebooks whose tiles are computed from lazy rasters when they are looked at."""

from xee_tf.exploring.explorer import Explorer, explore

__all__ = ["Explorer", "explore"]
