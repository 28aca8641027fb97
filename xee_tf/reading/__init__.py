"""From TFRecord and a mixer back to pixels: exports opened, as lazy rasters, checked and described."""
