"""Checks of options that `tf_dataset` and `PatchSequence` share; without TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Size
from xee_tf.options import integer
from xee_tf.training.groups import Groups, group_names
from xee_tf.training.weighting import Weighting

__all__ = [
    "check_count",
    "check_seed",
    "dtype_error",
    "generator",
    "require_single_target",
    "require_square",
    "require_targets",
    "whole_number",
]

_INT64 = (1 << 63) - 1  # the numbers of tf.data


def whole_number(minimum: int) -> Callable[[Any, str], int]:
    """Return a check of whole numbers that fit in 64 bits."""
    return integer(minimum, _INT64)


check_count = whole_number(1)
check_seed = whole_number(-_INT64 - 1)


def generator(seed: int | None, *parts: int) -> np.random.Generator:
    """Create random numbers for an epoch, or for a batch of it; they differ in each call without a seed."""
    return np.random.default_rng(None if seed is None else [abs(seed), seed < 0, *parts])


def dtype_error(name: str, dtype: Any) -> OptionError:
    """Return the error for a dtype that is not one of numbers."""
    return OptionError(f"{name} must be a numeric dtype, such as 'float32'; got {shorten(repr(dtype))}.")


def require_single_target(name: str, value: Any, targets: Groups) -> None:
    """Raise an error if an option of class numbers is used with anything else than one target band."""
    if value is not None and sum(map(len, targets.values())) != 1:
        raise OptionError(
            f"{name}={shorten(repr(value))} requires a single target band, which contains class numbers; got "
            f"targets={group_names(targets)}."
        )


def require_targets(weighting: Weighting | None, targets: Groups) -> None:
    """Raise an error if there are weights, but no targets."""
    if weighting is not None and not targets:
        raise OptionError(
            "sample_weight and class_weight weight the errors of targets, but there are no targets: pass "
            "targets, or omit the weights."
        )


def require_square(area: Size) -> None:
    """Raise an error if patches cannot be rotated by 90 degrees."""
    if area.x != area.y:
        raise OptionError(
            f"augment='d4' rotates patches, which must be square; these have {area.x} x {area.y} pixels. "
            "Omit augment, or use square patches with a square kernel."
        )
