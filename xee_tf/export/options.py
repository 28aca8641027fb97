"""The options of an export: Earth Engine's spelling, ours, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from xee_tf.errors import OptionError
from xee_tf.geometry import Edge, Size
from xee_tf.records.example import FeatureTypes

__all__ = ["EE_NAMES", "ExportOptions", "IfExists", "from_earth_engine"]

IfExists = Literal["error", "overwrite"]

#: Earth Engine's names of the options that a ``formatOptions`` dictionary may hold, and ours.
EE_NAMES = {
    "patchDimensions": "patch_dimensions",
    "kernelSize": "kernel_size",
    "compressed": "compressed",
    "maxFileSize": "max_file_size",
    "defaultValue": "default_value",
    "tensorDepths": "tensor_depths",
    "sequenceData": "sequence_data",
    "collapseBands": "collapse_bands",
    "maskedThreshold": "masked_threshold",
}


def from_earth_engine(format_options: Mapping[str, Any], flat: Mapping[str, Any]) -> dict[str, Any]:
    """Translate Earth Engine's spelling into ours.

    Parameters
    ----------
    format_options : mapping
        As passed to ``ee.batch.Export.image``: ``{"patchDimensions": [256, 256]}``.
    flat : mapping
        The other form that Earth Engine takes: ``tfrecordPatchDimensions=[256, 256]``.

    Raises
    ------
    OptionError
        Where Earth Engine's own client raises: an unknown option, or one given in both forms.

    Examples
    --------
    >>> from_earth_engine({"kernelSize": [32, 32]}, {"tfrecordPatchDimensions": [256, 256]})
    {'kernel_size': [32, 32], 'patch_dimensions': [256, 256]}
    """
    given: dict[str, Any] = {}
    for source, prefixed in ((format_options, False), (flat, True)):
        for key, value in source.items():
            name = key
            if key.startswith("tfrecord"):
                name = key[8:9].lower() + key[9:]
            elif prefixed:
                _unknown({key: value}, "export options", [f"tfrecord{n[0].upper()}{n[1:]}" for n in EE_NAMES])
            if name not in EE_NAMES:
                _unknown({key: value}, "file format options", list(EE_NAMES))
            if EE_NAMES[name] in given:
                raise OptionError(f"Both 'tfrecord{name[0].upper()}{name[1:]}' and {name!r} are specified.")
            given[EE_NAMES[name]] = value
    return given


def _unknown(options: Mapping[str, Any], what: str, known: Sequence[str]) -> None:
    raise OptionError(f"Unknown {what}: {dict(options)}. Known are {', '.join(known)}.")


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Checked options of an image export. See `xee_tf.export_image` for what each one does."""

    patch: Size
    kernel: Size
    compressed: bool
    max_file_size: int
    default_value: float
    tensor_depths: Mapping[str, int] | Sequence[int] | None
    sequence_data: bool
    collapse_bands: bool
    drop_masked_steps: bool
    masked_threshold: float
    feature_types: FeatureTypes
    edge: Edge
    index: bool
    if_exists: IfExists

    @classmethod
    def read(
        cls,
        *,
        patch_dimensions: Any,
        kernel_size: Any,
        compressed: Any,
        max_file_size: Any,
        default_value: Any,
        tensor_depths: Any,
        sequence_data: Any,
        collapse_bands: Any,
        drop_masked_steps: Any,
        masked_threshold: Any,
        feature_types: Any,
        edge: Any,
        index: Any,
        if_exists: Any,
    ) -> ExportOptions:
        """Check what a user gave.

        Raises
        ------
        OptionError
            That names the option, the value and what was expected.
        """
        patch = _positive(Size.from_xy(patch_dimensions, "patch_dimensions"), "patch_dimensions")
        kernel = _positive(Size.from_xy(kernel_size, "kernel_size"), "kernel_size")
        if isinstance(max_file_size, bool) or not _number(max_file_size) or int(max_file_size) < 1:
            raise OptionError(f"max_file_size must be a positive number of bytes; got {max_file_size!r}.")
        if not _number(default_value) or not math.isfinite(default_value):
            raise OptionError(f"default_value must be a finite number; got {default_value!r}.")
        if not _number(masked_threshold) or not 0 <= masked_threshold <= 1:
            raise OptionError(
                f"masked_threshold must be a proportion between 0 and 1; got {masked_threshold!r}."
            )
        if tensor_depths is not None and not isinstance(tensor_depths, Mapping | Sequence):
            raise OptionError(
                f"tensor_depths must be a mapping from array bands to depths; got {tensor_depths!r}."
            )
        if drop_masked_steps and not sequence_data:
            raise OptionError(
                "drop_masked_steps=True needs sequence_data=True: a patch has the same steps at every pixel."
            )
        _one_of("feature_types", feature_types, get_args(FeatureTypes))
        _one_of("edge", edge, get_args(Edge))
        _one_of("if_exists", if_exists, get_args(IfExists))
        return cls(
            patch=patch,
            kernel=kernel,
            compressed=bool(compressed),
            max_file_size=int(max_file_size),
            default_value=default_value,
            tensor_depths=tensor_depths,
            sequence_data=bool(sequence_data),
            collapse_bands=bool(collapse_bands),
            drop_masked_steps=bool(drop_masked_steps),
            masked_threshold=float(masked_threshold),
            feature_types=feature_types,
            edge=edge,
            index=bool(index),
            if_exists=if_exists,
        )


def _number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return not isinstance(value, str)


def _positive(size: Size, name: str) -> Size:
    if min(size.xy) < 1:
        raise OptionError(f"{name} must be at least 1 pixel on either side; got {size.xy}.")
    return size


def _one_of(name: str, value: Any, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise OptionError(f"{name} must be {' or '.join(map(repr, allowed))}; got {value!r}.")
