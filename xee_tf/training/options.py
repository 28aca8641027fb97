"""The options of `tf_dataset`, checked and converted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from xee_tf.dtypes import DTYPE_ERRORS
from xee_tf.extras import extra
from xee_tf.options import Options, check_default_value, choice, flag, option
from xee_tf.reading import Margins, Unit
from xee_tf.sampling import PatchSelection
from xee_tf.training.caching import read_cache
from xee_tf.training.checks import (
    check_count,
    check_seed,
    dtype_error,
    require_single_target,
    require_targets,
    whole_number,
)
from xee_tf.training.groups import Groups, group_names, read_groups
from xee_tf.training.normalizing import NormalizeMethod, Scales, read_scales
from xee_tf.training.selecting import read_selection
from xee_tf.training.weighting import ClassWeight, SampleWeight, Weighting

__all__ = ["DatasetOptions"]


def _flag_or_count(value: Any, name: str) -> int | bool:
    """Check an option that is a bool or a number."""
    return flag(value, name) if isinstance(value, bool | np.bool_) else whole_number(0)(value, name)


def _read_targets(value: Any, name: str) -> Groups:
    return read_groups(value, name, ["landcover"], allow_empty=True)


def _read_normalize(value: Any, name: str) -> Any:
    return (
        choice(*get_args(NormalizeMethod))(value, name)
        if isinstance(value, str)
        else read_scales(value, name)
    )


def _read_one_hot(value: Any, name: str) -> int | bool:
    return True if value is True else check_count(value, name)


def _read_default_value(value: Any, name: str) -> float:
    check_default_value(value, finite=False)
    return float(value)


def _numeric_dtype(dtype: Any, name: str) -> Any:
    """Convert a dtype of numbers to TensorFlow's."""
    with extra("tensorflow", "tf_dataset"):
        import tensorflow as tf

    try:
        found = tf.as_dtype(dtype)
    except DTYPE_ERRORS:
        found = tf.string
    if not (found.is_floating or found.is_integer or found.is_bool) or dtype is None:
        raise dtype_error(name, dtype)
    return found


@dataclass(frozen=True, kw_only=True)
class DatasetOptions(Options):
    """The options of `xee_tf.tf_dataset` that are not those of reading; see there."""

    inputs: Groups = option(check=read_groups)
    targets: Groups = option((), _read_targets)
    batch_size: int = option(32, check_count)
    shuffle: bool | int = option(False, _flag_or_count)
    seed: int | None = option(None, check_seed)
    repeat: bool | int = option(False, _flag_or_count)
    drop_remainder: bool = option(False, flag)
    cache: bool | str = option(False, read_cache)
    unit: Unit | None = option(None, choice("patch", "pixel", None))
    margins: Margins | None = option(None, choice("keep", "trim", None))
    target_margins: Margins | None = option(None, choice("keep", "trim", None))
    target_dtype: Any = option("float32", _numeric_dtype)
    normalize: NormalizeMethod | Scales | None = option(None, _read_normalize)
    augment: str | None = option(None, choice("d4", None))
    one_hot: int | bool | None = option(None, _read_one_hot)
    sample_weight: SampleWeight | None = None
    class_weight: ClassWeight | None = None
    default_value: float | None = option(None, _read_default_value)
    patches: PatchSelection | None = option(None, read_selection)
    num_parallel_reads: int | None = option(None, check_count)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("one_hot", "class_weight"):
            require_single_target(name, getattr(self, name), self.targets)
        require_targets(self.weighting, self.targets)

    @property
    def weighting(self) -> Weighting | None:
        """What the weights are computed from."""
        return Weighting.of(self.sample_weight, self.class_weight)

    @property
    def bands(self) -> list[str]:
        """All bands that are read."""
        weights = () if self.weighting is None else self.weighting.bands
        return list(dict.fromkeys([*group_names(self.inputs), *group_names(self.targets), *weights]))
