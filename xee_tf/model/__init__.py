"""Predictions with a model: its description in Earth Engine's terms, and how rasters and tables reach it."""
