"""Records as a `tf.data.Dataset` of channels-last tensors, ready for ``model.fit``.

TensorFlow does all the work, in batches: reading, inflating, parsing and stacking run in its own
threads. Python only says what to do. TensorFlow itself is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.options import READ_SPELLING, check_flags, flag, integer, one_of, spelled
from xee_tf.reading import Margins, OpenedExport, ReadOptions, Unit, band_names
from xee_tf.storage import PathLike
from xee_tf.training.sources import Exports, check_alike, open_exports

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["tf_dataset"]


_SHUFFLE_BYTES = 256 << 20  # what a shuffle buffer may hold where its size is left to us
_POOL_PIXELS = 1 << 20  # pixels parsed together, and mixed with one another, where they are the unit
_POOL_BYTES = 128 << 20  # what they may take as tensors
_INT64 = (1 << 63) - 1


@spelled(READ_SPELLING)
def tf_dataset(
    files_or_mixer: Exports,
    *,
    inputs: str | Sequence[str],
    targets: str | Sequence[str] | None = None,
    batch_size: int = 32,
    shuffle: bool | int = False,
    seed: int | None = None,
    repeat: bool | int = False,
    drop_remainder: bool = False,
    unit: Unit | None = None,
    margins: Margins | None = None,
    target_margins: Margins | None = None,
    target_dtype: Any = "float32",
    records: Sequence[PathLike] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    num_parallel_reads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """Exported patches or pixels as a `tf.data.Dataset` for training, evaluation or prediction.

    Array bands keep their steps on an axis of their own, directly behind that of the batch, whether
    they are in the Examples of patches or in SequenceExamples, one for each pixel.

    Parameters
    ----------
    files_or_mixer : str, path-like or sequence of them
        A mixer (``scene-mixer.json``): its shards are found beside it, and a missing record is an
        error. Or its prefix or folder, or what an export returned. Or TFRecord files, tables too, or a
        pattern such as ``"out/scene-*.tfrecord.gz"``. Several exports are read one after the other (mixed,
        where shuffled) if their records are alike.
    inputs : str or sequence of str
        Bands that the model sees, in the order of the last axis; of a table, columns. Array bands must
        have one depth; a scalar band beside them is repeated at every step. Bands of a collapsed export
        go by their own names.
    targets : str or sequence of str, optional
        Bands that the model learns, stacked by themselves in the same way, or labels that stand beside
        patches (see `patch_dimensions`). Without them, elements are the inputs alone.
    batch_size : int
        Patches, or pixels, in an element.
    shuffle : bool or int
        False: the order of the records, exactly. A number: files in random order, and so many
        records in a shuffle buffer. True: as many as 256 MiB hold. Each epoch differs. The pixels of
        patches are mixed with one another, too, up to a million, or as many as 128 MiB hold.
    seed : int, optional
        Makes a shuffled order the same in every run.
    repeat : bool or int
        True: without end. A number: so many epochs in one.
    drop_remainder : bool
        Leave out a last element that is smaller than `batch_size`.
    unit : {"patch", "pixel"}, optional
        What an example is: a patch, or each of its pixels by itself, row-major. Default: "patch"; "pixel",
        and nothing else, where each record is one: SequenceExamples, rows of a table.
    margins : {"keep", "trim"}, optional
        Whether the margin that `kernel_size` added is part of a patch. Default: "keep" for patches,
        "trim" for pixels, so that each pixel of the raster comes once.
    target_margins : {"keep", "trim"}, optional
        The same for targets, for models that see a margin but answer for the patch alone. Default: as
        `margins`. Patches only.
    target_dtype : dtype
        float32 by default. An integer type keeps class numbers as they are.
    records : sequence of path-like, optional
        The shards of a single mixer, in order, where they are not beside it.
    patch_dimensions : int or (width, height), optional
        Needed for patches from files without a mixer. Never with a mixer. Features that do not hold whole
        patches are values of the record: labels, coordinates. As targets they have the shape
        ``(batch, values)``; a single value among patches is repeated at every pixel. Texts are ignored.
    kernel_size : int or (width, height), optional
        Where it cannot be told from the length of the records.
    tensor_depths : mapping from band to int, optional
        Depths of array bands, where no sidecar tells them and the first record does not: several depths
        fit, or its series is not the longest. Beside patches a feature with exactly that many values per
        record is a label.
    num_parallel_reads : int, optional
        Shards read at a time when shuffled. Default: TensorFlow decides. In order, they are
        read one by one.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    tf.data.Dataset
        Elements are ``inputs`` or ``(inputs, targets)``, float32 unless `target_dtype` says otherwise:

        =======  ===================================  ===========================================
        unit     scalar bands alone                   with array bands
        =======  ===================================  ===========================================
        "patch"  ``(batch, height, width, bands)``    ``(batch, steps, height, width, bands)``
        "pixel"  ``(batch, bands)``                   ``(batch, steps, bands)``
        =======  ===================================  ===========================================

    Raises
    ------
    OptionError
        If a band is not in the records, bands have several depths, or an option cannot be used.
    MissingShardError
        If shards of a mixer are not there.

    Notes
    -----
    Series that lack steps (``drop_masked_steps``) are filled up behind, to the depth of their band, with the
    export's ``default_value``; with 0 where no sidecar tells it. Several further dimensions of a band are
    one axis of steps, in their order, as in the records.

    In files without a mixer records may lack features, as Earth Engine's tables do: absent numbers are NaN,
    or an error where `target_dtype` is an integer type. The labels of a patch are repeated for each of its
    pixels if the unit is "pixel".

    float_list, int64_list and byte blobs (uint8) are all read; see `xee_tf.feature_spec`. Local files
    are read by TensorFlow, others through fsspec, by Python, record by record.

    Examples
    --------
    >>> import tempfile, numpy as np, xarray as xr, xee_tf
    >>> x, y = 7e5 + 30 * np.arange(64.0), 5e6 - 30 * np.arange(64.0)
    >>> band = (("y", "x"), np.arange(64 * 64, dtype="float32").reshape(64, 64))
    >>> ds = xr.Dataset({"B4": band, "label": band}, coords={"x": x, "y": y}, attrs={"crs": "EPSG:32633"})
    >>> folder = tempfile.mkdtemp()
    >>> result = ds.tfexport(f"{folder}/scene", patch_dimensions=32, kernel_size=8)
    >>> patches = xee_tf.tf_dataset(
    ...     f"{folder}/scene-mixer.json", inputs=["B4"], targets=["label"], batch_size=2
    ... )
    >>> for image, label in patches:
    ...     print(image.shape, label.shape)
    (2, 40, 40, 1) (2, 40, 40, 1)
    (2, 40, 40, 1) (2, 40, 40, 1)
    """
    with extra("tensorflow", "tf_dataset"):
        import tensorflow as tf

    from xee_tf.training.parsing import Side, batch_parser, mix
    from xee_tf.training.stream import serialised_records

    input_names, target_names = _names("inputs", inputs), _names("targets", targets)
    one_of("unit", unit, ("patch", "pixel", None))
    one_of("margins", margins, ("keep", "trim", None))
    one_of("target_margins", target_margins, ("keep", "trim", None))
    batch_size = integer(1, _INT64)(batch_size, "batch_size")
    shuffle, repeat = _switch(shuffle, "shuffle"), _switch(repeat, "repeat")
    check_flags(drop_remainder=drop_remainder)
    if num_parallel_reads is not None:
        num_parallel_reads = integer(1, _INT64)(num_parallel_reads, "num_parallel_reads")
    if seed is not None:
        seed = integer(-_INT64 - 1, _INT64)(seed, "seed")
    target_dtype = _number_type(target_dtype)

    options = ReadOptions(
        records=records,
        bands=list(dict.fromkeys([*input_names, *target_names])),
        patch_dimensions=patch_dimensions,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        storage_options=storage_options,
    )
    exports = open_exports(files_or_mixer, options)
    check_alike(exports)
    export = exports[0]
    unit = _unit(unit, export)
    margins = margins or ("trim" if unit == "pixel" else "keep")
    if unit == "pixel" and target_margins not in (None, margins):
        raise OptionError("target_margins differ from margins: the pixels of inputs and targets must match.")
    sides = [Side.of(export, input_names, margins, "float32")]
    if target_names:
        sides.append(Side.of(export, target_names, target_margins or margins, target_dtype))

    count = _total(exports)
    raw = serialised_records(
        [shard for each in exports for shard in each.shards], shuffle, seed, num_parallel_reads
    )
    if count is not None:
        # Progress bars know where they are, and a record that went missing since is an error.
        raw = raw.apply(tf.data.experimental.assert_cardinality(count))
    if shuffle:
        room = max(1, _SHUFFLE_BYTES // export.record_bytes) if shuffle is True else shuffle
        raw = raw.shuffle(min(room, count or room), seed=seed)
    if repeat:
        raw = raw.repeat(None if repeat is True else repeat)

    parse = batch_parser(export, sides, flat=unit == "pixel")
    if unit == "patch" or export.content.unit == "pixel":
        data = raw.batch(batch_size, drop_remainder=drop_remainder)
        data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    else:
        values = sum(len(side.bands) * (side.depth or 1) for side in sides)
        pixels = min(_POOL_PIXELS, _POOL_BYTES // (4 * values))
        pool = raw.batch(max(1, pixels // export.stored.pixels))
        data = pool.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        if shuffle:
            seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
            data = tf.data.Dataset.zip(data, seeds).map(mix, num_parallel_calls=tf.data.AUTOTUNE)
        data = data.rebatch(batch_size, drop_remainder=drop_remainder)
        if count is not None and repeat is not True:
            total = count * export.area(margins).pixels * int(repeat or 1)
            steps = total // batch_size if drop_remainder else -(-total // batch_size)
            data = data.apply(tf.data.experimental.assert_cardinality(steps))
    if not target_names:
        data = data.map(lambda image: image)
    return data.prefetch(tf.data.AUTOTUNE)


def _total(exports: Sequence[OpenedExport]) -> int | None:
    """Records in all exports, if they were counted."""
    counts = [export.records for export in exports if export.records is not None]
    return sum(counts) if len(counts) == len(exports) else None


def _unit(unit: Unit | None, export: OpenedExport) -> Unit:
    """What an example is, if the records allow it."""
    untold = OptionError(
        f"Nothing tells the shape of the patches in {export}: give the mixer instead of its files, or "
        "patch_dimensions=(width, height)."
    )
    if export.content.unit == "pixel":
        if unit == "patch" and not export.described and any(band.dims for band in export.bands):
            raise untold
        if unit == "patch":
            raise OptionError(
                f"unit='patch' needs patches, but each record of {export} is a single pixel: leave unit out, "
                "or export without sequence_data."
            )
        return "pixel"
    if unit != "pixel" and export.content.unit is None:
        raise untold
    return unit or "patch"


def _switch(value: Any, name: str) -> int | bool:
    """True, False, or a number."""
    return flag(value, name) if isinstance(value, bool | np.bool_) else integer(0, _INT64)(value, name)


def _number_type(dtype: Any) -> Any:
    """A dtype of numbers, as TensorFlow has it."""
    with extra("tensorflow", "tf_dataset"):
        import tensorflow as tf

    try:
        found = tf.as_dtype(dtype)
    except (TypeError, ValueError):
        found = tf.string
    if not (found.is_floating or found.is_integer or found.is_bool) or dtype is None:
        raise OptionError(f"target_dtype must be a type of numbers, such as 'float32'; got {dtype!r}.")
    return found


def _names(option: str, names: str | Sequence[str] | None) -> list[str]:
    listed = [] if names is None else band_names(option, names)
    if option == "inputs" and not listed:
        raise OptionError("inputs is empty: name at least one band.")
    for name in listed:
        if listed.count(name) > 1:
            raise OptionError(f"{option} names the band {name!r} twice.")
    return listed
