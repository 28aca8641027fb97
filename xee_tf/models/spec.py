"""The specification of a model: its connector and its options, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import Any, ClassVar

from xee_tf.connector import Connector
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models.options import (
    ModelKeywords,
    read_inputs,
    read_name,
    read_names,
    read_nonempty_names,
    read_outputs,
    read_shapes,
    read_types,
)
from xee_tf.models.projection import Projection
from xee_tf.models.types import PixelType
from xee_tf.options import Options, flag, number, option

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec(Options):
    """The connector of a model, and how rasters and tables become its inputs.

    The public class is `xee_tf.Model`, which describes each option and adds constructors and prediction.

    Examples
    --------
    >>> from xee_tf.models.function import FunctionConnector
    >>> spec = ModelSpec(FunctionConnector.of(len), input_tile_size=[144, 128], output_bands=["p"])
    >>> spec.input_tile_size, list(spec.output_bands)
    (Size(x=144, y=128), ['p'])
    """

    _keywords: ClassVar[type] = ModelKeywords
    _none_is_default: ClassVar[bool] = True

    connector: Connector
    _: KW_ONLY
    inputs: Mapping[str, str] | None = option(None, read_inputs)
    input_name: str | None = option(None, read_name)
    bands: tuple[str, ...] | None = option(None, read_nonempty_names)
    input_properties: tuple[str, ...] = option((), read_names)
    input_type_override: Mapping[str, PixelType] | None = option(None, read_types)
    input_shapes: Mapping[str, tuple[int, ...]] | None = option(None, read_shapes)
    array_dims: tuple[str, ...] | None = option(None, read_names)
    proj: Projection | None = option(None, Projection.of)
    fix_input_proj: bool = option(False, flag)
    input_tile_size: Size | None = option(None, Size.from_xy)
    input_overlap_size: Size = option(0, partial(Size.from_xy, least=0))
    overlap_is_total: InitVar[bool] = False
    output_tile_size: Size | None = option(None, Size.from_xy)
    output_bands: Mapping[str, PixelType] | None = option(None, read_outputs)
    output_properties: Mapping[str, PixelType] | None = option(None, read_outputs)
    output_multiplier: float = option(1.0, number(1))

    def __post_init__(self, overlap_is_total: bool | None) -> None:
        connector: Any = self.connector
        if not all(callable(getattr(connector, name, None)) for name in ("open", "signature")):
            raise OptionError(
                f"connector must be a Connector; got {connector!r}. Use Model.from_function for a function, "
                "Model.from_keras for a Keras model or Model.from_saved_model for a SavedModel."
            )
        super().__post_init__()
        if overlap_is_total is not None and flag(overlap_is_total, "overlap_is_total"):
            object.__setattr__(self, "input_overlap_size", _half(self.input_overlap_size))
        if self.inputs is not None and (self.bands is not None or self.input_name is not None):
            raise OptionError(
                "inputs cannot be combined with bands or input_name: it already assigns each band to an "
                "input. Bands with the same input are stacked in the order of inputs."
            )


def _half(total: Size) -> Size:
    if total.x % 2 or total.y % 2:
        raise OptionError(
            f"input_overlap_size must be even with overlap_is_total=True, because two edges share it; got "
            f"{total.xy}."
        )
    return Size(x=total.x // 2, y=total.y // 2)
