"""The specification with which TensorFlow parses the records of an export."""

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

__all__ = ["MISSING_INTEGER", "SequenceSpec", "example_spec", "feature_spec", "missing_value", "record_spec"]

MISSING_INTEGER = -(2**63)  # represents a missing integer between parsing and casting


class SequenceSpec(NamedTuple):
    """The specification with which TensorFlow parses SequenceExamples; see `xee_tf.feature_spec`.

    Parameters
    ----------
    context : dict of str to tf.io.FixedLenFeature
        The scalar bands.
    sequence : dict of str to tf.io.FixedLenSequenceFeature
        The array bands.
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
    """Return the specification with which TensorFlow parses the records of an export or a table.

    Collapsed bands are one feature with the name of the first band. Without a mixer, kinds and lengths are
    those of the first record that has a feature: records are read until all `bands` are found, up to the
    first 16 MiB.

    Parameters
    ----------
    files_or_mixer : str, path-like, ExportResult, TableResult, or sequence or mapping of these
        The mixer, prefix, folder or result of an export, or TFRecord files; see `tf_dataset`. If there are
        several exports, the specification is that of the first one.
    bands : sequence of str, optional
        The bands, or columns of a table. Default: all, in the order of the record.
    records : sequence of path-like, optional
        The shards of a single mixer, in order, if they are not next to it.
    patch_dimensions : int or (int, int), optional
        Width and height of the patches in pixels; only for files without a mixer.
    kernel_size : int or (int, int), optional
        Width and height of the kernel in pixels, if it cannot be inferred.
    tensor_depths : mapping of str to int, optional
        The depths of array bands, if they cannot be inferred; see `tf_dataset`.
    storage_options : mapping of str to object, optional
        Options for fsspec, for remote files.

    Returns
    -------
    dict or SequenceSpec
        For Examples: a dictionary from names to `tf.io.FixedLenFeature`, for `tf.io.parse_example`. The shape
        of a float or int64 list is [height, width], including margins, or [depth, height, width] for an
        array band. A byte band is one string per record; ``tf.io.decode_raw(value, tf.uint8)`` returns its
        values as a flat tensor. Without a mixer and `patch_dimensions`, all lists are flat: the shape is
        [values], or [1] for strings, as in `xee_tf.TableResult.feature_spec`. Labels of patches are flat,
        too. If some records lack a feature, missing numbers are NaN and missing strings are empty. An int64
        list has no such value: if it is missing in some records, the feature is a `tf.io.VarLenFeature`, and
        so is a feature whose lists differ in length.

        For SequenceExamples: a pair ``(context, sequence)`` of such dictionaries, for
        ``tf.io.parse_single_sequence_example(record, *spec)`` or ``tf.io.parse_sequence_example``. Scalar
        bands are `tf.io.FixedLenFeature`, array bands `tf.io.FixedLenSequenceFeature` with one value per step
        (for byte bands, one string of one byte). A SequenceExample without array bands has the same bytes as
        an Example; its specification is a dictionary.

    Raises
    ------
    OptionError
        If a band is not found, or an option is invalid.
    MissingShardError
        If a file, or a shard of a mixer, is not found.
    RecordError
        If a file is not a valid TFRecord file, or its records do not match the options.

    See Also
    --------
    xee_tf.tf_dataset : Read the records as a `tf.data.Dataset`.

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
    """Return the specification of the records of an export; see `xee_tf.feature_spec`."""
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
    """Return the specification of Examples with features that may be missing or have a variable length."""
    tf = _tensorflow()

    spec: dict[str, Any] = {}
    for feature in export.layout.features:
        name, dtype, shape = feature.name, _dtype(feature), _shape(export, feature)
        if name in variable:
            spec[name] = tf.io.VarLenFeature(dtype)
        elif name in optional:
            spec[name] = tf.io.FixedLenFeature(shape, dtype, missing_value(feature, shape))
        else:
            spec[name] = tf.io.FixedLenFeature(shape, dtype)
    return spec


def _dtype(feature: Feature) -> tf.DType:
    """Return the TensorFlow dtype of a feature; byte lists are strings."""
    tf = _tensorflow()

    return {"float": tf.float32, "int64": tf.int64, "bytes": tf.string}[feature.kind]


def missing_value(feature: Feature, shape: Sequence[int]) -> Any:
    """Return the value of a feature in records that lack it."""
    return np.full(shape, {"float": np.nan, "int64": MISSING_INTEGER, "bytes": b""}[feature.kind]).tolist()


def _step_shape(feature: Feature) -> list[int]:
    """Return the shape of a list in a SequenceExample; xee_tf writes single values."""
    return [] if feature.size == 1 or feature.kind == "bytes" else [feature.size]


def _shape(export: OpenedExport, feature: Feature) -> list[int]:
    """Return the shape of a list in an Example."""
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
