"""Where a raster lies: its CRS, affine and spatial dimensions, found in what xarray users have, and written."""
