"""Predictions of a model for rasters and tables."""

from xee_tf.predict.averaging import Blend
from xee_tf.predict.image import predict_image
from xee_tf.predict.options import PREDICT_SPELLING, PredictKeywords, PredictOptions
from xee_tf.predict.plan import PredictPlan, plan_prediction
from xee_tf.predict.properties import predict_properties
from xee_tf.predict.resampling import Resampling
from xee_tf.predict.to_cog import predict_to_cog, write_cog
from xee_tf.predict.to_zarr import Written, predict_to_zarr, write_zarr

__all__ = [
    "PREDICT_SPELLING",
    "Blend",
    "PredictKeywords",
    "PredictOptions",
    "PredictPlan",
    "Resampling",
    "Written",
    "plan_prediction",
    "predict_image",
    "predict_properties",
    "predict_to_cog",
    "predict_to_zarr",
    "write_cog",
    "write_zarr",
]
