"""How TensorFlow has to read the records of an export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xee_tf.extras import extra
from xee_tf.options import READ_SPELLING, spelled
from xee_tf.reading import OpenedExport, ReadOptions
from xee_tf.records import Feature
from xee_tf.storage import PathLike
from xee_tf.training.sources import Exports, open_exports

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["NO_INTEGER", "SequenceSpec", "absent_value", "example_spec", "feature_spec", "record_spec"]

NO_INTEGER = -(2**63)  # stands for an absent integer between parsing and casting


class SequenceSpec(NamedTuple):
    """How TensorFlow reads SequenceExamples; see `xee_tf.feature_spec`.

    Parameters
    ----------
    context : dict
        Name of a scalar band to `tf.io.FixedLenFeature`.
    sequence : dict
        Name of an array band to `tf.io.FixedLenSequenceFeature`.
    """

    context: dict[str, Any]
    sequence: dict[str, Any]


@spelled(READ_SPELLING)
def feature_spec(
    files_or_mixer: Exports,
    *,
    bands: Sequence[str] | None = None,
    records: Sequence[PathLike] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any] | SequenceSpec:
    """How TensorFlow has to read the records of an export, or of a table.

    Bands that were collapsed are one feature, under the name of the first one. Where there is no mixer, kinds
    and lengths are those of the first record that holds a feature: records are read until each of `bands` was
    found, or the first 16 MiB of them.

    Parameters
    ----------
    files_or_mixer, records, patch_dimensions, kernel_size, tensor_depths, storage_options
        As in `tf_dataset`.
    bands : sequence of str, optional
        Default: all, in the order of the record.

    Returns
    -------
    dict or SequenceSpec
        Of Examples: name to `tf.io.FixedLenFeature`, for `tf.io.parse_example`. The shape of a float or
        int64 list is [height, width], margins included, or [depth, height, width] of an array band. A
        byte band is one string per record: ``tf.io.decode_raw(value, tf.uint8)`` has its values, flat.
        Without a mixer and `patch_dimensions` all lists are flat: [values], of strings [1], as
        `xee_tf.TableResult.feature_spec` has them of a table; so are labels beside patches. Of a feature
        that some records lack, absent numbers are NaN and absent strings empty. int64 has no value for
        that: such a feature, and one whose lists differ in length, is a `tf.io.VarLenFeature`.

        Of SequenceExamples: a pair ``(context, sequence)`` of such dictionaries, for
        ``tf.io.parse_single_sequence_example(record, *spec)`` or ``tf.io.parse_sequence_example``. Scalar
        bands are `tf.io.FixedLenFeature`, array bands `tf.io.FixedLenSequenceFeature`, of one value (byte
        bands: of one string of one byte). Without any array band a SequenceExample is an Example, to
        the byte, and its spec a dictionary.

    Examples
    --------
    >>> import tempfile, numpy as np, tensorflow as tf, xarray as xr, xee_tf
    >>> x, y = 7e5 + 30 * np.arange(4.0), 5e6 - 30 * np.arange(4.0)
    >>> ds = xr.Dataset(
    ...     {"slope": (("y", "x"), np.ones((4, 4))), "ndvi": (("time", "y", "x"), np.ones((3, 4, 4)))},
    ...     coords={"x": x, "y": y},
    ...     attrs={"crs": "EPSG:32633"},
    ... )
    >>> folder = tempfile.mkdtemp()
    >>> patches = ds.tfexport(f"{folder}/patches", patch_dimensions=4)
    >>> {name: feature.shape for name, feature in feature_spec(f"{folder}/patches-mixer.json").items()}
    {'slope': [4, 4], 'ndvi': [3, 4, 4]}
    >>> series = ds.tfexport(f"{folder}/series", patch_dimensions=4, sequence_data=True)
    >>> spec = feature_spec(f"{folder}/series-mixer.json")
    >>> record = next(iter(tf.data.TFRecordDataset(series.files[0].path, "GZIP")))
    >>> context, sequence = tf.io.parse_single_sequence_example(record, *spec)
    >>> context["slope"].numpy(), sequence["ndvi"].numpy()
    (np.float32(1.0), array([1., 1., 1.], dtype=float32))
    """
    options = ReadOptions(
        records=records,
        bands=bands,
        patch_dimensions=patch_dimensions,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        storage_options=storage_options,
    )
    [export, *_] = open_exports(files_or_mixer, options)
    return record_spec(export)


def record_spec(export: OpenedExport) -> dict[str, Any] | SequenceSpec:
    """How TensorFlow reads the records of an export; see `xee_tf.feature_spec`."""
    tf = _tensorflow()

    content, layout = export.content, export.layout
    if layout.sequences is not None:
        context, sequence = tf.io.FixedLenFeature, tf.io.FixedLenSequenceFeature
        return SequenceSpec(
            {each.name: context(_step_shape(each), _dtype(each)) for each in layout.context},
            {each.name: sequence(_step_shape(each), _dtype(each)) for each in layout.sequences},
        )
    integers = {feature.name for feature in layout.features if feature.kind == "int64"}
    return example_spec(export, content.absent, content.ragged | content.absent & integers)


def example_spec(export: OpenedExport, optional: Set[str], variable: Set[str]) -> dict[str, Any]:
    """A spec of Examples, in which some features may be absent, and others have any length."""
    tf = _tensorflow()

    spec: dict[str, Any] = {}
    for feature in export.layout.features:
        name, dtype, shape = feature.name, _dtype(feature), _shape(export, feature)
        if name in variable:
            spec[name] = tf.io.VarLenFeature(dtype)
        elif name in optional:
            spec[name] = tf.io.FixedLenFeature(shape, dtype, absent_value(feature, shape))
        else:
            spec[name] = tf.io.FixedLenFeature(shape, dtype)
    return spec


def _dtype(feature: Feature) -> tf.DType:
    """The dtype of a feature's values; byte lists are strings."""
    tf = _tensorflow()

    return {"float": tf.float32, "int64": tf.int64, "bytes": tf.string}[feature.kind]


def absent_value(feature: Feature, shape: Sequence[int]) -> Any:
    """What a feature is in records that lack it."""
    return np.full(shape, {"float": np.nan, "int64": NO_INTEGER, "bytes": b""}[feature.kind]).tolist()


def _step_shape(feature: Feature) -> list[int]:
    """The shape of one list of a SequenceExample: of ours, a single value."""
    return [] if feature.size == 1 or feature.kind == "bytes" else [feature.size]


def _shape(export: OpenedExport, feature: Feature) -> list[int]:
    """The shape of the list of an Example."""
    content = export.content
    if content.unit != "patch" or feature.name in content.labels:
        return [1] if feature.kind == "bytes" else [feature.size]
    if feature.kind == "bytes":
        return []
    depth = content.depths[feature.name]
    scalar = depth == 1 and not any(band.dims for band in export.bands if band.feature == feature.name)
    return [*([] if scalar else [depth]), *export.stored.shape]


def _tensorflow() -> Any:
    with extra("tensorflow", "feature_spec"):
        import tensorflow
    return tensorflow
