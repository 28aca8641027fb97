"""Select the pixels, points and patches of a raster to sample; statistics of its bands."""

from xee_tf.sampling.choice import Choice, Sample, first_plane
from xee_tf.sampling.places import FindPixels, SamplePixels, find_sample_pixels
from xee_tf.sampling.selection import PatchSelection
from xee_tf.sampling.statistics import BandStatistics, band_statistics, statistics_dataset

__all__ = [
    "BandStatistics",
    "Choice",
    "FindPixels",
    "PatchSelection",
    "Sample",
    "SamplePixels",
    "band_statistics",
    "find_sample_pixels",
    "first_plane",
    "statistics_dataset",
]
