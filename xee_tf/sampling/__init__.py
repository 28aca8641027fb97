"""Select the pixels and points of a raster to sample."""

from xee_tf.sampling.choice import Choice, Sample, first_plane
from xee_tf.sampling.places import FindPixels, SamplePixels, find_sample_pixels

__all__ = [
    "Choice",
    "FindPixels",
    "Sample",
    "SamplePixels",
    "find_sample_pixels",
    "first_plane",
]
