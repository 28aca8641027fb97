"""Batches of serialised records to tensors, in TensorFlow's own operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from xee_tf.errors import OptionError
from xee_tf.reading.content import fitting_fill
from xee_tf.reading.sources import Source
from xee_tf.records.example import Feature, RecordLayout
from xee_tf.records.sequence import SequenceLayout
from xee_tf.sidecars import BandDimensions

__all__ = ["SequenceSpec", "Side", "batch_parser", "record_spec"]


class SequenceSpec(NamedTuple):
    """How TensorFlow has to read SequenceExamples; see `xee_tf.feature_spec`.

    Parameters
    ----------
    context : dict
        Name of a scalar band to `tf.io.FixedLenFeature`.
    sequence : dict
        Name of an array band to `tf.io.FixedLenSequenceFeature`.
    """

    context: dict[str, Any]
    sequence: dict[str, Any]


@dataclass(frozen=True)
class Side:
    """What becomes one tensor: inputs or targets.

    Parameters
    ----------
    bands : tuple of BandDimensions
        In the order of the last axis.
    trim : bool
        Whether margins are cut off.
    dtype : dtype
    """

    bands: tuple[BandDimensions, ...]
    trim: bool
    dtype: Any

    @classmethod
    def of(cls, source: Source, names: Sequence[str], trim: bool, dtype: Any) -> Side:
        """A side of the bands that are named.

        Raises
        ------
        OptionError
            If they differ in depth, or one holds strings.
        """
        side = cls(tuple(source.band(name) for name in names), trim, dtype)
        if source.pixelwise and source.records is None and isinstance(source.layout, RecordLayout):
            texts = [feature.name for feature in source.layout.features if feature.kind == "bytes"]
            for name in set(names).intersection(texts):
                raise OptionError(
                    f"{name!r} holds strings, which cannot be stacked with numbers: read it with "
                    "tf.io.parse_example and feature_spec. If it is a band of bytes, give the mixer."
                )
        depths = {band.name: band.depth for band in side.bands if band.dims}
        if len(set(depths.values())) > 1:
            listed = ", ".join(f"{name!r} {depth}" for name, depth in depths.items())
            raise OptionError(
                f"The bands differ in depth, {listed}: they cannot be stacked. Make a dataset of those of "
                "each depth and join them with tf.data.Dataset.zip, or export them with equal tensor_depths."
            )
        return side

    @property
    def depth(self) -> int | None:
        """Steps of its tensor; None where all bands are scalar."""
        return next((band.depth for band in self.bands if band.dims), None)


def record_spec(source: Source) -> dict[str, Any] | SequenceSpec:
    """How TensorFlow has to read the features of a source; see `xee_tf.feature_spec`."""
    import tensorflow as tf

    kinds = {"float": tf.float32, "int64": tf.int64, "bytes": tf.string}
    if isinstance(source.layout, SequenceLayout):
        return SequenceSpec(
            {
                feature.name: tf.io.FixedLenFeature(_values_shape(feature), kinds[feature.kind])
                for feature in source.layout.context
            },
            {
                feature.name: tf.io.FixedLenSequenceFeature(_values_shape(feature), kinds[feature.kind])
                for feature in source.layout.sequences
            },
        )
    return {
        feature.name: tf.io.FixedLenFeature(_shape(source, feature), kinds[feature.kind])
        for feature in source.layout.features
    }


def _values_shape(feature: Feature) -> list[int]:
    """What one list of a SequenceExample is: a value, as far as it is ours."""
    return [] if feature.size == 1 or feature.kind == "bytes" else [feature.size]


def _shape(source: Source, feature: Feature) -> list[int]:
    """What a feature of an Example is."""
    if not source.shaped:
        return [1] if feature.kind == "bytes" else [feature.size]
    if feature.kind == "bytes":
        return []
    depth = source.depths[feature.name]
    scalar = depth == 1 and not any(band.dims for band in source.bands if band.feature == feature.name)
    return [*([] if scalar else [depth]), *source.stored.shape]


def batch_parser(source: Source, sides: Sequence[Side], *, flat: bool) -> Callable[[Any], Any]:
    """A function from a batch of serialised records to one tensor for each side, bands last.

    Parameters
    ----------
    source : Source
    sides : sequence of Side
    flat : bool
        Whether each pixel is an example of its own.
    """
    import tensorflow as tf

    parse_features = (_series_parser if isinstance(source.layout, SequenceLayout) else _patch_parser)(source)
    height, width = source.stored.shape
    top, left = source.margin.shape

    def cut(values: Mapping[str, Any], band: BandDimensions, side: Side) -> Any:
        """One band: (batch, height, width), with the steps behind batch where the side has any."""
        tensor = values[band.feature][:, band.first : band.first + band.depth]
        if side.trim:
            tensor = tensor[:, :, top : height - top, left : width - left]
        tensor = tf.cast(tensor, side.dtype)
        if side.depth is None:
            return tensor[:, 0]
        return tensor if band.dims else tf.repeat(tensor, side.depth, axis=1)

    def parse(batch: Any) -> Any:
        values = parse_features(batch)
        tensors = []
        for side in sides:
            tensor = tf.stack([cut(values, band, side) for band in side.bands], axis=-1)
            if flat and side.depth is not None:
                tensor = tf.transpose(tensor, (0, 2, 3, 1, 4))
                tensor = tf.reshape(tensor, (-1, side.depth, len(side.bands)))
            elif flat:
                tensor = tf.reshape(tensor, (-1, len(side.bands)))
            tensors.append(tensor)
        return tuple(tensors)

    return parse


def _patch_parser(source: Source) -> Callable[[Any], dict[str, Any]]:
    """A function from a batch of Examples to features of shape (batch, depth, height, width)."""
    import tensorflow as tf

    spec = record_spec(source)

    def parse(batch: Any) -> dict[str, Any]:
        found = tf.io.parse_example(batch, spec)
        return {
            name: tf.reshape(
                tf.io.decode_raw(values, tf.uint8) if values.dtype == tf.string else values,
                (-1, source.depths[name], *source.stored.shape),
            )
            for name, values in found.items()
        }

    return parse


def _series_parser(source: Source) -> Callable[[Any], dict[str, Any]]:
    """A function from a batch of SequenceExamples to features of shape (batch, depth, 1, 1)."""
    import tensorflow as tf

    spec = record_spec(source)
    features = {feature.name: feature for feature in source.layout.features}

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
            feature, depth = features[name], source.depths[name]
            steps = depth // feature.size
            missing = steps - tf.shape(values)[1]
            few_enough = tf.debugging.assert_non_negative(
                missing,
                f"Records have more steps of {name} than {steps}, as many as the first one has or "
                "tensor_depths says: say there how many they have at most",
            )
            with tf.control_dependencies([few_enough]):  # or padding may be first to complain
                values = tf.pad(numbers(values, name), [[0, 0], [0, missing], [0, 0]])
            there = tf.sequence_mask(lengths[name], steps)[..., None]
            fill = tf.constant(fitting_fill(source.fill, feature.kind), values.dtype)
            found[name] = tf.reshape(tf.where(there, values, fill), (-1, depth))
        return {name: values[:, :, None, None] for name, values in found.items()}

    return parse
