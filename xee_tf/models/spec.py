"""The specification of a model: its connector and its options, as immutable values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar, dataclass
from functools import partial
from typing import Any, ClassVar, get_args

from xee_tf.connector import Connector
from xee_tf.errors import OptionError
from xee_tf.geometry import Size
from xee_tf.models.options import (
    ModelKeywords,
    ModelUnit,
    read_inputs,
    read_name,
    read_outputs,
    read_properties,
    read_shapes,
    read_types,
)
from xee_tf.models.projection import Projection
from xee_tf.models.types import PixelType
from xee_tf.options import Options, choice, flag, number, option, read_names
from xee_tf.training import Scales, read_scales

__all__ = ["ModelSpec"]


@dataclass(frozen=True)
class ModelSpec(Options):
    """The connector of a model, and the conversion of rasters and tables to its inputs.

    `xee_tf.Model` adds constructors and prediction.

    Parameters
    ----------
    connector : Connector
        Where the model is and how it is called.
    unit : {"tile", "pixel"}, default "tile"
        What the model takes of an image (Earth Engine has only tiles). "pixel" is for models without spatial
        context, such as dense, recurrent and 1-D convolutional networks and those of scikit-learn: the model
        takes ``(n, band)`` or, with `array_dims`, ``(n, time, band)``, and returns ``(n,)`` or ``(n,
        channel)``. Masked pixels are not sent. There are no sizes of tiles then.
    inputs : mapping of str to str, optional
        The model input that each band, property or column goes to. Bands with the same input are stacked
        along its last axis, in the order of the mapping. Default: the inputs of the same names or, if the
        model has a single input, all bands stacked in it.
    input_name : str, optional
        The input in which the bands are stacked, for a model with several inputs.
    bands : sequence of str, optional
        The bands that the model takes, in the order in which they are stacked. Default: all bands, if the
        model takes that many.
    input_properties : sequence of str, optional
        Properties that are sent with each instance. A property of an image is repeated for each tile. For a
        table, its columns, in the order in which they are stacked.
    input_type_override : mapping of str to dtype, optional
        Types that bands and properties are converted to, as numpy dtypes or Earth Engine pixel types.
        Fractions are truncated and values outside the range are clamped. Default: the dtype of the model's
        input, if numpy's casting rule ``same_kind`` allows the conversion.
    input_shapes : mapping of str to sequence of int, optional
        Shapes of array bands, such as ``{"ndvi": [12]}``. The dimensions of the band that have these sizes
        go to the model, as ``(n, height, width, *shape)`` if the band has an input of its own, and are not
        mapped over. Single pixels have no height and width here and below.
    array_dims : str or sequence of str, optional
        Dimensions other than y and x, such as ``("time",)``, that go to the model as a whole, in this order:
        ``(n, height, width, time, band)``, just as `xee_tf.tf_dataset` yields ``[time, band]`` for training.
        A band without such a dimension is repeated at every step. All other dimensions are mapped over: each
        step is predicted separately. ``()`` maps over every dimension. Default: the dimensions that
        `input_shapes` or the shapes of the model's own inputs require. The order of the dimensions in the
        image does not matter.
    proj : tuple, mapping or GeoBox, optional
        The CRS and grid of the pixels that the model takes: ``("EPSG:32633", 30)`` for pixels of 30 meters,
        ``(crs, transform)`` for an exact grid, a mapping as returned by ``ee.Projection.getInfo``, an
        ``ee.Projection`` or a GeoBox of odc-geo.
    fix_input_proj : bool, default False
        Resample the pixels to `proj`, instead of using the projection of the image.
    input_tile_size : int or pair of int, optional
        Width and height of a tile in pixels, without its overlap. Default: the size that the model takes,
        less the overlap.
    input_overlap_size : int or pair of int, default 0
        Pixels added along each edge: tiles of ``input_tile_size + 2 * input_overlap_size`` are sent, as in
        Earth Engine's reference and code samples. The overlap may be larger than the tile: a
        classifier of 3 x 3 neighborhoods has a tile of 1 and an overlap of 1.
    overlap_is_total : bool, default False
        `input_overlap_size` is the sum of both edges, as in Earth Engine's guide to image predictions.
    output_tile_size : int or pair of int, optional
        Width and height in pixels of the prediction for the `input_tile_size` pixels of a tile. A size other
        than `input_tile_size` changes the scale. Default: the size of the model's output, or
        `input_tile_size`.
    output_bands : mapping or sequence of str, optional
        The output bands, as ``{name: {"type": "float32", "dimensions": 1, "shape": [3]}}``,
        ``{name: "float32"}`` or names. ``dimensions`` is 0 for a scalar band and 1 for a vector in each
        pixel. ``shape``, which Earth Engine does not have, is required if the signature of the model does
        not contain it. A single output may have any name here, unless a function returns it in a mapping;
        all others are matched by name. Several scalar bands of a single output are its channels. A single
        output here is also the only one with several channels, such as the probabilities of a classifier
        that returns labels, too, if the names are not those of outputs. An integer pixel type with a range,
        ``{"precision": "int", "min": 0, "max": 9}``, clamps the values to it, and masked pixels get a value
        outside it. ``{"class": {"argmax": ["forest", "water"]}}`` is a map of the most probable class, as
        `xee_tf.class_map` makes it, from a single output of the model with a channel for each class; Earth
        Engine does not have this. ``values``, ``colors`` and ``nodata`` are those of `xee_tf.class_map`;
        ``"confidence": True``, or its name, adds its band. Default: the outputs in the signature of the
        model.
    output_properties : mapping or sequence of str, optional
        The same for tables, where a range only determines the type.
    output_multiplier : float, default 1
        Approximate size of the model's output relative to its input, at least 1.
    normalize : Dataset or mapping of str to (float, float), optional
        Normalize bands, properties and columns before they go to the model, as `xee_tf.tf_dataset` does with
        the same value: the result of `xee_tf.band_statistics` or `xee_tf.normalization`, or an offset and a
        scale for each of them, ``(value - offset) / scale`` in float32. Masked pixels are 0 before. Earth
        Engine does not have this option: for a model that is also used there, put a
        ``keras.layers.Normalization`` in the model instead.

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
    unit: ModelUnit = option("tile", choice(*get_args(ModelUnit)))
    inputs: Mapping[str, str] | None = option(None, read_inputs)
    input_name: str | None = option(None, read_name)
    bands: tuple[str, ...] | None = option(None, read_names)
    input_properties: tuple[str, ...] = option(
        (), partial(read_names, example=("elevation", "slope"), allow_empty=True)
    )
    input_type_override: Mapping[str, PixelType] | None = option(None, read_types)
    input_shapes: Mapping[str, tuple[int, ...]] | None = option(None, read_shapes)
    array_dims: tuple[str, ...] | None = option(
        None, partial(read_names, example=("time",), allow_empty=True)
    )
    proj: Projection | None = option(None, Projection.of)
    fix_input_proj: bool = option(False, flag)
    input_tile_size: Size | None = option(None, Size.from_xy)
    input_overlap_size: Size = option(0, partial(Size.from_xy, least=0))
    overlap_is_total: InitVar[bool] = False
    output_tile_size: Size | None = option(None, Size.from_xy)
    output_bands: Mapping[str, PixelType] | None = option(None, read_outputs)
    output_properties: Mapping[str, PixelType] | None = option(None, read_properties)
    output_multiplier: float = option(1.0, number(1))
    normalize: Scales | None = option(None, read_scales)

    def __post_init__(self, overlap_is_total: bool | None) -> None:
        connector: Any = self.connector
        if not all(callable(getattr(connector, name, None)) for name in ("open", "signature")):
            raise OptionError(
                f"connector must be a Connector; got {connector!r}. Use Model.from_function for a function, "
                "Model.from_keras for a Keras model, Model.from_saved_model for a SavedModel or "
                "Model.from_onnx for an ONNX model."
            )
        super().__post_init__()
        if overlap_is_total is not None and flag(overlap_is_total, "overlap_is_total"):
            object.__setattr__(self, "input_overlap_size", _half(self.input_overlap_size))
        if self.unit == "pixel":
            _require_no_tiles(self)
        if self.inputs is not None and (self.bands is not None or self.input_name is not None):
            raise OptionError(
                "inputs cannot be combined with bands or input_name: it already assigns each band to an "
                "input. Bands with the same input are stacked in the order of inputs."
            )


def _require_no_tiles(spec: ModelSpec) -> None:
    """Check that a model of single pixels has no sizes of tiles."""
    sizes = {
        "input_tile_size": spec.input_tile_size,
        "input_overlap_size": spec.input_overlap_size if max(spec.input_overlap_size.xy) else None,
        "output_tile_size": spec.output_tile_size,
    }
    if given := [f"{name}={size.xy}" for name, size in sizes.items() if size is not None]:
        raise OptionError(
            f"unit='pixel' sends single pixels, which have no tiles; got {', '.join(given)}. Omit the sizes "
            "or, for a model of tiles, unit."
        )


def _half(total: Size) -> Size:
    if total.x % 2 or total.y % 2:
        raise OptionError(
            f"input_overlap_size must be even with overlap_is_total=True, because two edges share it; got "
            f"{total.xy}."
        )
    return Size(x=total.x // 2, y=total.y // 2)
