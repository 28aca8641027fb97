"""Which pixels and points of a raster are sampled."""
