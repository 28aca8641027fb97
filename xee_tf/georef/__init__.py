"""Where a raster lies: CRS, affine and spatial dimensions, as xarray users have them."""
