"""Predictions: writing them as TFRecord, and turning them into GeoTIFF or Zarr."""
