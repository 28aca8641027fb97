"""Predictions: from rasters and tables to the output bands and columns of a model."""
