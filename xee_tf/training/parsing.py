"""Batches of serialised records to tensors, in TensorFlow's own operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.reading import Margins, OpenedExport, fit_fill_value
from xee_tf.records import Feature
from xee_tf.sidecars import BandSpec
from xee_tf.training.spec import NO_INTEGER, absent_value, example_spec, record_spec

with extra("tensorflow", "A tf.data.Dataset"):
    import tensorflow as tf

__all__ = ["Side", "batch_parser", "mix"]


@dataclass(frozen=True)
class Side:
    """What becomes one tensor, its bands on the last axis: inputs or targets."""

    bands: tuple[BandSpec, ...]
    margins: Margins
    dtype: Any

    @classmethod
    def of(cls, export: OpenedExport, names: Sequence[str], margins: Margins, dtype: Any) -> Side:
        """A side of the bands that are named."""
        side = cls(tuple(export.band(name) for name in names), margins, dtype)
        content, layout = export.content, export.layout
        if not export.described:
            for feature in layout.features:
                text = content.unit == "pixel" or feature.name in content.labels
                if layout.sequences is not None:
                    text = feature in layout.context
                if feature.name in names and feature.kind == "bytes" and text:
                    raise OptionError(
                        f"{feature.name!r} holds strings, which cannot be stacked with numbers: read it with "
                        "tf.io.parse_example and feature_spec. If it is a band of bytes, give the mixer."
                    )
        wide = [name for name in names if content.labels.get(name, 1) > 1]
        if wide and not side.is_flat(export):
            raise OptionError(
                f"{wide[0]!r} holds {content.labels[wide[0]]} values per record and cannot be stacked with "
                "patches. Make a dataset of each and join them with tf.data.Dataset.zip."
            )
        depths = {band.name: band.depth for band in side.bands if band.dims}
        if len(set(depths.values())) > 1:
            listed = ", ".join(f"{name!r} {depth}" for name, depth in depths.items())
            raise OptionError(
                f"The bands differ in depth, {listed}: they cannot be stacked. Make a dataset of those of "
                "each depth and join them with tf.data.Dataset.zip, or export them with equal tensor_depths."
            )
        return side

    def is_flat(self, export: OpenedExport) -> bool:
        """Whether all its bands hold values of whole records: labels of patches."""
        return all(band.feature in export.content.labels for band in self.bands)

    @property
    def depth(self) -> int | None:
        """Steps of its tensor; None where all bands are scalar."""
        return next((band.depth for band in self.bands if band.dims), None)


def batch_parser(export: OpenedExport, sides: Sequence[Side], *, flat: bool) -> Callable[[Any], Any]:
    """A function from a batch of serialised records to one tensor for each side, bands last.

    `flat` is whether each pixel is an example of its own.
    """
    parse_features = (_series_parser if export.layout.sequences is not None else _patch_parser)(export)
    labels = export.content.labels
    height, width = export.stored.shape
    top, left = export.content.margin.shape

    def cut(values: Mapping[str, Any], band: BandSpec, side: Side) -> Any:
        """One band: (batch, height, width), with the steps behind batch where the side has any."""
        tensor = values[band.feature]
        if band.feature in labels:  # one value, which is that of every pixel
            tensor = tf.tile(tensor[:, :, None, None], (1, 1, height, width))
        tensor = tensor[:, band.first : band.first + band.depth]
        if side.margins == "trim":
            tensor = tensor[:, :, top : height - top, left : width - left]
        tensor = _cast(tensor, band, side, export)
        if side.depth is None:
            return tensor[:, 0]
        return tensor if band.dims else tf.repeat(tensor, side.depth, axis=1)

    def parse(batch: Any) -> Any:
        values = parse_features(batch)
        tensors = []
        for side in sides:
            if side.is_flat(export):
                parts = [_cast(values[band.feature], band, side, export) for band in side.bands]
                tensor = tf.concat(parts, axis=-1)
                if flat:
                    tensor = tf.repeat(tensor, export.area(side.margins).pixels, axis=0)
                tensors.append(tensor)
                continue
            tensor = tf.stack([cut(values, band, side) for band in side.bands], axis=-1)
            if flat and side.depth is not None:
                tensor = tf.transpose(tensor, (0, 2, 3, 1, 4))
                tensor = tf.reshape(tensor, (-1, side.depth, len(side.bands)))
            elif flat:
                tensor = tf.reshape(tensor, (-1, len(side.bands)))
            tensors.append(tensor)
        return tuple(tensors)

    return parse


def _patch_parser(export: OpenedExport) -> Callable[[Any], dict[str, Any]]:
    """A function from a batch of Examples to features of shape (batch, depth, height, width).

    Those of labels are of shape (batch, values).
    """
    content = export.content
    numbers = {each.name: each for each in export.layout.features if each.kind != "bytes"}
    short: dict[str, Feature] = {}
    if export.complete:
        spec = example_spec(export, set(), set())
    else:
        spec = example_spec(export, numbers.keys(), set())
        # TensorFlow refuses empty lists but for these. Patches, which are long, are read in the faster way.
        short = {
            name: each for name, each in numbers.items() if content.unit == "pixel" or name in content.labels
        }
        for name, each in short.items():
            fill = absent_value(each, ())
            spec[name] = tf.io.FixedLenSequenceFeature([], spec[name].dtype, True, fill)

    def filled(values: Any, feature: Feature) -> Any:
        """Lists that may be empty, all of one length."""
        message = f"Records of {export} have more than {feature.size} values of {feature.name}"
        return tf.ensure_shape(
            _padded(values, feature.size, message, absent_value(feature, ())), (None, feature.size)
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
    """Values with the second axis as long as it can be in a batch; longer ones are an error."""
    missing = length - tf.shape(values)[1]
    few_enough = tf.debugging.assert_non_negative(missing, message)
    with tf.control_dependencies([few_enough]):  # or padding may be first to complain
        rest = [[0, 0]] * (len(values.shape) - 2)
        return tf.pad(values, [[0, 0], [0, missing], *rest], constant_values=tf.constant(fill, values.dtype))


def _cast(values: Any, band: BandSpec, side: Side, export: OpenedExport) -> Any:
    """Values in the dtype of a side; absent ones are NaN, and refused where that is an integer type."""
    dtype = tf.as_dtype(side.dtype)
    if export.described or values.dtype not in (tf.float32, tf.int64):
        return tf.cast(values, dtype)
    if values.dtype == tf.float32:
        absent = None if dtype.is_floating else tf.math.is_nan(values)
    else:
        absent = None if export.complete else tf.equal(values, NO_INTEGER)
    if absent is None:
        return tf.cast(values, dtype)
    if dtype.is_floating:
        return tf.where(absent, tf.constant(float("nan"), dtype), tf.cast(values, dtype))
    there = tf.debugging.assert_equal(
        tf.reduce_any(absent),
        False,
        f"Records of {export} lack a value of {band.name}, and {dtype.name} has none that stands for it. "
        "Use target_dtype='float32', where it is NaN, or leave such records out when the table is written",
    )
    with tf.control_dependencies([there]):
        return tf.cast(values, dtype)


def _series_parser(export: OpenedExport) -> Callable[[Any], dict[str, Any]]:
    """A function from a batch of SequenceExamples to features of shape (batch, depth, 1, 1)."""
    spec = record_spec(export)
    features = {feature.name: feature for feature in export.layout.features}

    def numbers(values: Any, name: str) -> Any:
        """The values of lists on an axis of their own."""
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
                f"Records have more steps of {name} than {steps}, as many as the first one has or "
                "tensor_depths says: say there how many they have at most"
            )
            values = _padded(numbers(values, name), steps, message)
            there = tf.sequence_mask(lengths[name], steps)[..., None]
            fill = tf.constant(fit_fill_value(export.content.fill, feature), values.dtype)
            found[name] = tf.reshape(tf.where(there, values, fill), (-1, depth))
        return {name: values[:, :, None, None] for name, values in found.items()}

    return parse


def mix(tensors: Any, seed: Any) -> Any:
    """The same random order for the pixels of all tensors."""
    count = tf.shape(tensors[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    return tuple(tf.gather(tensor, order) for tensor in tensors)
