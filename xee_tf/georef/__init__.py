"""Where a raster lies: CRS, affine and spatial dimensions, as xarray users have them."""

from xee_tf.georef.conventions import spatial_dims
from xee_tf.georef.reference import GeoRef, read_georef, same_grid, write_georef
from xee_tf.georef.region import region_window

__all__ = ["GeoRef", "read_georef", "region_window", "same_grid", "spatial_dims", "write_georef"]
