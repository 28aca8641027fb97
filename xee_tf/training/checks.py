"""Checks of options that `tf_dataset` and `PatchSequence` share; without TensorFlow."""

from __future__ import annotations

from typing import Any

from xee_tf.errors import OptionError, shorten
from xee_tf.geometry import Size
from xee_tf.training.groups import Groups, group_names
from xee_tf.training.weighting import Weighting

__all__ = ["require_single_target", "require_square", "require_targets"]


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
