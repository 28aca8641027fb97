"""The options of a prediction from an image: how they are spelled, their defaults, and what each may be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypedDict, get_args

from affine import Affine

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
"""How the options of a prediction are written."""


class PredictKeywords(TypedDict, total=False):
    """What users write for the options of a prediction; `xee_tf.Model.predict_image` describes each one."""

    properties: Mapping[str, Any] | None
    batch_size: int | None
    blend: Blend
    skip_masked: bool
    augment: Literal["d4"] | None
    resampling: Resampling
    output_grid: Literal["image", "model"]
    crs: Any
    transform: Affine | Sequence[float] | None


@dataclass(frozen=True, kw_only=True)
class PredictOptions(Options):
    """Checked options of a prediction; `xee_tf.Model.predict_image` describes each one."""

    _keywords: ClassVar[type] = PredictKeywords

    properties: Mapping[str, Any] | None = None
    batch_size: int | None = None
    blend: Blend = option("crop", choice(*get_args(Blend)))
    skip_masked: bool = option(True, flag)
    augment: Literal["d4"] | None = option(None, choice(None, "d4"))
    resampling: Resampling = option("nearest", choice(*get_args(Resampling)))
    output_grid: Literal["image", "model"] = option("image", choice("image", "model"))
    crs: Any = None
    transform: Affine | Sequence[float] | None = None
