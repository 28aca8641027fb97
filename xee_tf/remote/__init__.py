"""Ways to a model: what travels in a graph, and what lives in one process. No rasters here."""
