"""Parse batches of serialized records to tensors, with TensorFlow operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.reading import Margins, OpenedExport, fit_fill_value
from xee_tf.records import LIST_DTYPES, Feature, RecordLayout
from xee_tf.sidecars import BandSpec
from xee_tf.training.pieces import Pieces
from xee_tf.training.spec import MISSING_INTEGER, example_spec, missing_value, record_spec

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["Component", "batch_parser", "feature_parser", "piece_reader", "shuffle_pixels"]


@dataclass(frozen=True)
class Component:
    """A tensor that is read from the records, with its bands on the last axis.

    Parameters
    ----------
    bands : tuple of BandSpec
        The bands, in order.
    margins : {"keep", "trim"}
        Whether to keep the margins of patches.
    dtype : dtype
        The dtype of the tensor.
    masked : mapping of str to number
        The value of masked pixels in the records of each band, to be replaced by 0.
    validity : bool
        Whether the tensor has 1 for valid values, and 0 for missing values and for those in `masked`.
    convert : callable, optional
        Converts the tensor.
    """

    bands: tuple[BandSpec, ...]
    margins: Margins
    dtype: Any
    masked: Mapping[str, float] = field(default_factory=dict)
    validity: bool = False
    convert: Callable[[Any], Any] | None = None

    @classmethod
    def of(
        cls, export: OpenedExport, names: Sequence[str], margins: Margins, dtype: Any, **fields: Any
    ) -> Component:
        """Create a component from the names of bands; raise an error if the bands cannot be stacked."""
        component = cls(tuple(export.band(name) for name in names), margins, dtype, **fields)
        content, layout = export.content, export.layout
        if not export.described:
            for feature in layout.features:
                strings = content.unit == "pixel" or feature.name in content.labels
                if layout.sequences is not None:
                    strings = feature in layout.context
                if feature.name in names and feature.kind == "bytes" and strings:
                    raise OptionError(
                        f"{feature.name!r} contains strings, which cannot be stacked with numbers: convert "
                        "them before the export, for example with pandas.factorize, or read them with "
                        "tf.io.parse_example and xee_tf.feature_spec. If it is a band of bytes, pass the "
                        "mixer."
                    )
        wide = [name for name in names if content.labels.get(name, 1) > 1]
        if wide and not component.is_flat(export):
            raise OptionError(
                f"{wide[0]!r} has {content.labels[wide[0]]} values per record and cannot be stacked with "
                "patches: create a dataset for each and combine them with tf.data.Dataset.zip."
            )
        depths = {band.name: band.depth for band in component.bands if band.dims}
        if len(set(depths.values())) > 1:
            raise OptionError(
                f"Bands of different depths cannot be stacked; got the depths {depths}. Create a dataset for "
                "each depth and combine them with tf.data.Dataset.zip, or export with equal tensor_depths."
            )
        return component

    def is_flat(self, export: OpenedExport) -> bool:
        """Return whether all bands are labels: values of whole records of patches."""
        return all(band.feature in export.content.labels for band in self.bands)

    @property
    def depth(self) -> int | None:
        """The number of steps of the tensor; None if all bands are scalar."""
        return next((band.depth for band in self.bands if band.dims), None)


FeatureParser = Callable[[Any], dict[str, Any]]
"""A function from a batch to tensors of its features, of shape (batch, depth, height, width)."""


def batch_parser(
    export: OpenedExport, components: Sequence[Component], parse_features: FeatureParser, *, flat: bool
) -> Callable[[Any], Any]:
    """Return a function from a batch to a tuple of tensors, one per component.

    `parse_features` parses serialized records, or reads those of pieces. With `flat`, each pixel is an
    example.
    """
    labels = export.content.labels
    height, width = export.stored.shape
    top, left = export.content.margin.shape

    def band_tensor(values: Mapping[str, Any], band: BandSpec, component: Component) -> Any:
        """Return one band: (batch, height, width), or (batch, steps, height, width) if there are steps."""
        tensor = values[band.feature]
        if band.feature in labels:  # one value for all pixels
            tensor = tf.tile(tensor[:, :, None, None], (1, 1, height, width))
        if band.feature in labels or band.depth < export.content.depths[band.feature]:
            tensor = tensor[:, band.first : band.first + band.depth]
        if component.margins == "trim":
            tensor = tensor[:, :, top : height - top, left : width - left]
        tensor = _cast(tensor, band, component, export)
        if component.depth is None:
            return tf.squeeze(tensor, 1)  # unlike an index, it does not copy
        return tensor if band.dims else tf.repeat(tensor, component.depth, axis=1)

    def parse(batch: Any) -> Any:
        values = parse_features(batch)
        tensors = []
        for component in components:
            if component.is_flat(export):
                parts = [_cast(values[band.feature], band, component, export) for band in component.bands]
                tensor = tf.concat(parts, axis=-1)
                if flat:
                    tensor = tf.repeat(tensor, export.area(component.margins).pixels, axis=0)
                tensors.append(tensor)
                continue
            tensor = _stacked([band_tensor(values, band, component) for band in component.bands])
            if flat and component.depth is not None:
                tensor = tf.transpose(tensor, (0, 2, 3, 1, 4))
                tensor = tf.reshape(tensor, (-1, component.depth, len(component.bands)))
            elif flat:
                tensor = tf.reshape(tensor, (-1, len(component.bands)))
            tensors.append(tensor)
        return tuple(
            tensor if component.convert is None else component.convert(tensor)
            for component, tensor in zip(components, tensors, strict=True)
        )

    return parse


def _stacked(bands: Sequence[Any]) -> Any:
    """Stack tensors on a new last axis: the result of `tf.stack` with axis=-1, which is half as fast."""
    first, count = bands[0], len(bands)
    if count == 1:
        return tf.expand_dims(first, -1)
    planes = tf.reshape(tf.stack(bands), (count, tf.size(first)))
    stacked = tf.reshape(tf.transpose(planes), tf.concat([tf.shape(first), [count]], 0))
    return tf.ensure_shape(stacked, [*first.shape, count])


def feature_parser(export: OpenedExport) -> FeatureParser:
    """Return a function that parses a batch of serialized records."""
    return _series_parser(export) if export.layout.sequences is not None else _patch_parser(export)


def piece_reader(export: OpenedExport, pieces: Pieces, orders: Sequence[RecordLayout]) -> FeatureParser:
    """Return a function from numbers of pieces, which are single records of patches, to their features.

    The records are decoded as they are read, to arrays that TensorFlow uses without a copy.
    """
    features = export.layout.features
    read = partial(pieces.decode, layout=export.layout, orders=orders)
    dtypes = [tf.as_dtype(np.dtype(LIST_DTYPES[feature.kind])) for feature in features]

    def parse(numbers: Any) -> dict[str, Any]:
        found = tf.numpy_function(read, [numbers], dtypes)
        tensors = {}
        for each, values in zip(features, found, strict=True):
            known = tf.ensure_shape(values, (numbers.shape[0], each.size))
            shape = (-1, export.content.depths[each.name], *export.stored.shape)
            tensors[each.name] = tf.reshape(known, shape)
        return tensors

    return parse


def _patch_parser(export: OpenedExport) -> FeatureParser:
    """Return a function from a batch of Examples to tensors of shape (batch, depth, height, width).

    The shape of labels is (batch, values).
    """
    content = export.content
    numbers = {each.name: each for each in export.layout.features if each.kind != "bytes"}
    short: dict[str, Feature] = {}
    if export.complete:
        spec = example_spec(export, set(), set())
    else:
        spec = example_spec(export, numbers.keys(), set())
        # Only a FixedLenSequenceFeature allows empty lists; the long lists of patches use the faster class.
        short = {
            name: each for name, each in numbers.items() if content.unit == "pixel" or name in content.labels
        }
        for name, each in short.items():
            fill = missing_value(each, ())
            spec[name] = tf.io.FixedLenSequenceFeature([], spec[name].dtype, True, fill)

    def filled(values: Any, feature: Feature) -> Any:
        """Pad lists that may be empty to the same length."""
        message = (
            f"Records of {export} have more than {feature.size} values of {feature.name}, the number in the "
            "first record"
        )
        return tf.ensure_shape(
            _padded(values, feature.size, message, missing_value(feature, ())), (None, feature.size)
        )

    def parse(batch: Any) -> dict[str, Any]:
        found = tf.io.parse_example(batch, spec)
        tensors = {}
        for name, values in found.items():
            tensor = filled(values, short[name]) if name in short else values
            if tensor.dtype == tf.string:
                tensor = tf.io.decode_raw(tensor, tf.uint8)
            if name not in content.labels:
                tensor = tf.reshape(tensor, (-1, content.depths[name], *export.stored.shape))
            tensors[name] = tensor
        return tensors

    return parse


def _padded(values: Any, length: int, message: str, fill: Any = 0) -> Any:
    """Pad values to `length` along the second axis; longer values raise an error."""
    missing = length - tf.shape(values)[1]
    few_enough = tf.debugging.assert_non_negative(missing, message)
    with tf.control_dependencies([few_enough]):  # otherwise padding may raise its own error first
        rest = [[0, 0]] * (len(values.shape) - 2)
        return tf.pad(values, [[0, 0], [0, missing], *rest], constant_values=tf.constant(fill, values.dtype))


def _cast(values: Any, band: BandSpec, component: Component, export: OpenedExport) -> Any:
    """Cast values to the dtype of a component; missing values become NaN or, in integers, raise an error."""
    dtype = tf.as_dtype(component.dtype)
    if component.validity:
        return tf.cast(_is_valid(values, component.masked.get(band.name), export), dtype)
    if component.masked.get(band.name):  # 0 does not change
        masked = _equals(values, component.masked[band.name])
        values = tf.where(masked, tf.zeros((), values.dtype), values)
    if export.described or values.dtype not in (tf.float32, tf.int64):
        return tf.cast(values, dtype)
    if values.dtype == tf.float32:
        missing = None if dtype.is_floating else tf.math.is_nan(values)
    else:
        missing = None if export.complete else tf.equal(values, MISSING_INTEGER)
    if missing is None:
        return tf.cast(values, dtype)
    if dtype.is_floating:
        return tf.where(missing, tf.constant(float("nan"), dtype), tf.cast(values, dtype))
    complete = tf.debugging.assert_equal(
        tf.reduce_any(missing),
        False,
        f"Records of {export} lack a value of {band.name}, and {dtype.name} has no missing value. Pass "
        "target_dtype='float32' to read it as NaN, or drop such rows before the export",
    )
    with tf.control_dependencies([complete]):
        return tf.cast(values, dtype)


def _is_valid(values: Any, masked: float | None, export: OpenedExport) -> Any:
    """Return where values are neither masked nor missing."""
    valid = tf.ones_like(values, tf.bool)
    if values.dtype == tf.float32:
        valid = tf.logical_not(tf.math.is_nan(values))
    elif values.dtype == tf.int64 and not export.complete:
        valid = tf.not_equal(values, MISSING_INTEGER)
    return valid if masked is None else tf.logical_and(valid, tf.logical_not(_equals(values, masked)))


def _equals(values: Any, number: float) -> Any:
    """Return where values are a number, or NaN."""
    if number != number:
        return tf.math.is_nan(values)
    return tf.equal(values, tf.constant(number if values.dtype.is_floating else int(number), values.dtype))


def _series_parser(export: OpenedExport) -> FeatureParser:
    """Return a function from a batch of SequenceExamples to tensors of shape (batch, depth, 1, 1)."""
    spec = record_spec(export)
    features = {feature.name: feature for feature in export.layout.features}

    def numbers(values: Any, name: str) -> Any:
        """Return the values of each list on a separate axis."""
        size = features[name].size
        if values.dtype == tf.string:
            return tf.io.decode_raw(values, tf.uint8, fixed_length=size)
        return values[..., None] if size == 1 else values

    def parse(batch: Any) -> dict[str, Any]:
        context, series, lengths = tf.io.parse_sequence_example(batch, *spec)
        found = {name: numbers(values, name) for name, values in context.items()}
        for name, values in series.items():
            feature, depth = features[name], export.content.depths[name]
            steps = depth // feature.size
            message = (
                f"Records have more than {steps} steps of {name}, the number in tensor_depths or in the "
                "first record. Pass the maximum number of steps in tensor_depths"
            )
            values = _padded(numbers(values, name), steps, message)
            valid = tf.sequence_mask(lengths[name], steps)[..., None]
            fill = tf.constant(fit_fill_value(export.content.fill, feature), values.dtype)
            found[name] = tf.reshape(tf.where(valid, values, fill), (-1, depth))
        return {name: values[:, :, None, None] for name, values in found.items()}

    return parse


def shuffle_pixels(tensors: Any, seed: Any) -> Any:
    """Shuffle the pixels of all tensors in the same random order."""
    count = tf.shape(tensors[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    return tuple(tf.gather(tensor, order) for tensor in tensors)
