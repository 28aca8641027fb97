"""Select the pixels and points of a raster to sample."""

from xee_tf.sampling.choice import Choice, Sample, first_plane
from xee_tf.sampling.places import Places, find_places

__all__ = [
    "Choice",
    "Places",
    "Sample",
    "find_places",
    "first_plane",
]
