"""Select the pixels, points and patches of a raster to sample; statistics of its bands."""

from xee_tf.sampling.choice import Choice, Sample, first_plane
from xee_tf.sampling.grids import on_grid, require_margin
from xee_tf.sampling.patch_blocks import PatchBlock, read_block
from xee_tf.sampling.patch_sample import sample_patches
from xee_tf.sampling.places import FindPixels, SamplePixels, find_sample_pixels
from xee_tf.sampling.selection import PatchSelection
from xee_tf.sampling.splitting import (
    PatchSplit,
    check_shares,
    check_side_names,
    require_no_common_pixel,
    split_patches,
)
from xee_tf.sampling.statistics import BandStatistics, band_statistics, statistics_dataset

__all__ = [
    "BandStatistics",
    "Choice",
    "FindPixels",
    "PatchBlock",
    "PatchSelection",
    "PatchSplit",
    "Sample",
    "SamplePixels",
    "band_statistics",
    "check_shares",
    "check_side_names",
    "find_sample_pixels",
    "first_plane",
    "on_grid",
    "read_block",
    "require_margin",
    "require_no_common_pixel",
    "sample_patches",
    "split_patches",
    "statistics_dataset",
]
