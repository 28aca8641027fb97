"""Options of a prediction from an image: spelling, defaults, checks and descriptions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypedDict, get_args

from affine import Affine

from xee_tf.errors import OptionError, shorten
from xee_tf.models import REPLACED, ModelSpec
from xee_tf.options import Options, Spelling, choice, flag, option
from xee_tf.predict.averaging import Blend
from xee_tf.predict.resampling import Resampling

__all__ = ["PREDICT_SPELLING", "PredictKeywords", "PredictOptions"]

PREDICT_SPELLING = Spelling(
    "prediction options",
    replaced={name: instead for name, instead in REPLACED.items() if name != "crs"}
    | {
        name: f"it is an option of the model, as in Model.from_keras(model, {name}=...)"
        for name in [*(each.name for each in fields(ModelSpec)), "overlap_is_total"]
    },
)
"""Spelling of the options of a prediction."""


class PredictKeywords(TypedDict, total=False):
    """Options of a prediction as users write them; see `xee_tf.Model.predict_image`."""

    properties: Mapping[str, Any] | None
    batch_size: int | None
    blend: Blend
    skip_masked: bool
    augment: Literal["d4"] | None
    resampling: Resampling
    output_grid: Literal["image", "model"]
    crs: Any
    transform: Affine | Sequence[float] | None


def _read_properties(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(
            f"{name} must be a mapping of names to values, such as {{'year': 2020}}; got "
            f"{shorten(repr(value))}."
        )
    return value


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Checked options of a prediction.

    Parameters
    ----------
    properties : mapping of str to object, optional
        Values of the model's ``input_properties``, which are sent with every tile. Default: the attributes of
        `image`.
    batch_size : int, optional
        Number of tiles, or of pixels with ``unit="pixel"``, per call of the model. Default: as many as fit in
        about 8 MiB, but at most 8,192 tiles or 65,536 pixels, or the number that the model requires.
    blend : {"crop", "hann"}, default "crop"
        What to do with the overlap of predictions. "crop" cuts it off. "hann" averages the predictions of
        overlapping tiles with weights that decrease towards the edges of each tile (not in Earth Engine). It
        requires float outputs and a model with ``input_overlap_size``. The last bits depend on the chunks of
        the image, and on whether the prediction is made on a cluster.
    skip_masked : bool, default True
        Whether to skip tiles in which all pixels are masked. Their result is masked in either case.
    augment : {"d4"}, optional
        "d4" predicts every tile in the eight rotations and reflections of a square and returns the mean of
        each output and, in a second band with the suffix "_spread", the standard deviation (not in Earth
        Engine). Maps of classes (``"argmax"``) come from the mean probabilities, and have no second band. It
        requires float outputs and square tiles.
    resampling : {"nearest", "bilinear"}, default "nearest"
        Resampling method for models with ``fix_input_proj=True``, from the grid of the image to the model's
        projection and back. Predictions with an integer dtype are always resampled with "nearest". With
        "bilinear", maps of classes (``"argmax"``) come from the resampled probabilities.
    output_grid : {"image", "model"}, default "image"
        Grid of the result for models with ``fix_input_proj=True``: the grid of the image, or the grid of the
        model's projection.
    crs : str, int or pyproj.CRS, optional
        CRS of the image, if its own is missing or wrong.
    transform : Affine or sequence of float, optional
        Affine transformation from pixels to coordinates of the CRS, (a, b, c, d, e, f), if that of the image
        is missing or wrong.
    """

    _keywords: ClassVar[type] = PredictKeywords

    properties: Mapping[str, Any] | None = option(None, _read_properties)
    batch_size: int | None = None
    blend: Blend = option("crop", choice(*get_args(Blend)))
    skip_masked: bool = option(True, flag)
    augment: Literal["d4"] | None = option(None, choice(None, "d4"))
    resampling: Resampling = option("nearest", choice(*get_args(Resampling)))
    output_grid: Literal["image", "model"] = option("image", choice("image", "model"))
    crs: Any = None
    transform: Affine | Sequence[float] | None = None
