"""Predictions to TFRecord; records and rasters to files that a GIS opens."""
