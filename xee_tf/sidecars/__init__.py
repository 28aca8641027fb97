"""The files beside records: Earth Engine's mixer, and what the mixer cannot hold."""

from xee_tf.sidecars.dimensions import (
    BandDimensions,
    Dimensions,
    distinct_dims,
    label_steps,
    step_names,
)
from xee_tf.sidecars.mixer import Mixer, java_double

__all__ = [
    "BandDimensions",
    "Dimensions",
    "Mixer",
    "distinct_dims",
    "java_double",
    "label_steps",
    "step_names",
]
