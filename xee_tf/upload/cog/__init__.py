"""Write lazy rasters as cloud-optimized GeoTIFFs, encoded in Dask tasks.

`writer` plans and joins a file; `tiles` encodes its blocks with `encoding` and `overviews`; `header` lays out
the file.
"""

from xee_tf.upload.cog.origin import Origin, read_origin
from xee_tf.upload.cog.overviews import (
    POLICIES,
    OverviewResampling,
    Resampling,
    check_resampling,
    methods_of,
    require_no_overviews,
)
from xee_tf.upload.cog.writer import to_cog, write_arrays, write_raster

__all__ = [
    "POLICIES",
    "Origin",
    "OverviewResampling",
    "Resampling",
    "check_resampling",
    "methods_of",
    "read_origin",
    "require_no_overviews",
    "to_cog",
    "write_arrays",
    "write_raster",
]
