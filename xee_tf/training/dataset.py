"""Read records as a `tf.data.Dataset` of channels-last tensors for ``model.fit``.

TensorFlow reads, decompresses, parses and stacks the records in batches, in its own threads; Python only
builds the pipeline. TensorFlow is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from xee_tf.errors import OptionError
from xee_tf.extras import extra
from xee_tf.options import READ_SPELLING, spelled
from xee_tf.reading import Margins, OpenedExport, ReadOptions, Unit
from xee_tf.sampling import PatchSelection
from xee_tf.storage import PathLike
from xee_tf.training.caching import cache_files
from xee_tf.training.groups import Bands
from xee_tf.training.normalizing import Normalize
from xee_tf.training.options import DatasetOptions
from xee_tf.training.pieces import Pieces, cut_pieces
from xee_tf.training.selecting import selected_records
from xee_tf.training.sources import Exports, check_compatible, mixer_of, open_exports
from xee_tf.training.weighting import ClassWeight, SampleWeight

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["tf_dataset"]

_SHUFFLE_BYTES = 256 << 20  # maximum size of the shuffle buffer for shuffle=True
_LEAST_DECODED = 512 << 10  # TensorFlow parses smaller records faster, because Python decodes each one
_POOL_PIXELS = 1 << 20  # maximum number of pixels parsed and shuffled together if the unit is a pixel
_POOL_BYTES = 128 << 20  # maximum size of these pixels as tensors


@spelled(READ_SPELLING)
def tf_dataset(
    files_or_mixer: Exports,
    *,
    inputs: Bands,
    targets: Bands | None = None,
    batch_size: int = 32,
    shuffle: bool | int = False,
    seed: int | None = None,
    repeat: bool | int = False,
    drop_remainder: bool = False,
    cache: bool | PathLike = False,
    unit: Unit | None = None,
    margins: Margins | None = None,
    target_margins: Margins | None = None,
    target_dtype: Any = "float32",
    normalize: Normalize | None = None,
    augment: Literal["d4"] | None = None,
    one_hot: int | bool | None = None,
    sample_weight: SampleWeight | None = None,
    class_weight: ClassWeight | None = None,
    default_value: float | None = None,
    patches: PatchSelection | None = None,
    records: Sequence[PathLike] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    tensor_depths: Mapping[str, int] | None = None,
    num_parallel_reads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """Read exported patches or pixels as a `tf.data.Dataset` for training, evaluation or prediction.

    Array bands keep their steps on a separate axis after the batch axis, both in Examples of patches and in
    SequenceExamples of pixels.

    Parameters
    ----------
    files_or_mixer : str, path-like, ExportResult, TableResult, or sequence or mapping of these
        The mixer of an export (``scene-mixer.json``), its prefix or folder, or an export result. Shards are
        found next to the mixer, and missing records raise an error. Alternatively TFRecord files (also of
        tables), or a pattern such as ``"out/scene-*.tfrecord.gz"``. Several exports with compatible records
        are read one after another; with `shuffle` they are mixed.
    inputs : str, sequence of str, or mapping of str to these
        Bands (or columns of a table) that are the input of the model, in the order of the last axis. All
        array bands must have the same depth; scalar bands among them are repeated at every step. Bands of a
        collapsed export have their own names. For a model with several inputs, a mapping such as
        ``{"image": ["B4", "B3"], "terrain": ["slope"]}``, which gives a dictionary of tensors.
    targets : str, sequence of str, or mapping of str to these, optional
        Bands that the model predicts, stacked in the same way, or labels of patches (see
        `patch_dimensions`). By default, elements are only the inputs.
    batch_size : int, default 32
        The number of patches or pixels per element.
    shuffle : bool or int, default False
        False keeps the order of the records. An integer is the number of records in the shuffle buffer; files
        are read in random order, and those of patches in pieces of 1 MiB from random places. True uses a
        buffer of 256 MiB, or of all records if they are in memory (`cache`). The order differs in each epoch.
        If the unit is "pixel", the pixels of patches are shuffled, too: up to a million at a time, or 128
        MiB.
    seed : int, optional
        The random seed. It makes the shuffled order reproducible.
    repeat : bool or int, default False
        True repeats the records indefinitely; an integer is the number of repetitions.
    drop_remainder : bool, default False
        Whether to omit the last element if it is smaller than `batch_size`.
    cache : bool or path-like, default False
        Whether to keep the records of the first epoch in memory, decompressed, or a path on a local disk to
        keep them in. Later epochs do not read the export again, but are still shuffled and augmented
        differently. Files are named after the path and the version of each shard: another dataset of the
        same export reads them, one of another export does not. Delete them when they are not needed. A
        warning of TensorFlow that the dataset was not fully read can be ignored.
    unit : {"patch", "pixel"}, optional
        What an example is: a patch, or a single pixel; the pixels of a patch are in row-major order. Default:
        "patch". For SequenceExamples and rows of tables only "pixel" is possible, and is the default.
    margins : {"keep", "trim"}, optional
        Whether to keep the margin that `kernel_size` added to patches. Default: "keep" for patches; "trim"
        for pixels, so that each pixel of the raster appears once.
    target_margins : {"keep", "trim"}, optional
        Whether to keep the margin in the targets, for models whose output does not cover the margin of the
        input. Only for patches. Default: the same as `margins`.
    target_dtype : dtype, default "float32"
        The dtype of the targets. Integer dtypes keep class numbers exact.
    normalize : {"standard", "minmax"}, Dataset or mapping of str to (float, float), optional
        Normalize the inputs: ``(value - offset) / scale``. "standard" subtracts the mean of each band and
        divides by its standard deviation, "minmax" maps its range to 0 to 1, with the statistics in the
        manifests. Otherwise the numbers of a raster or of other exports: the result of
        `xee_tf.band_statistics` or `xee_tf.normalization`, or a mapping of bands to ``(offset, scale)``.
        Validation data and predictions must use the numbers of the training data: pass
        ``normalize=xee_tf.normalization(train)`` to all of them, also to the constructor of `xee_tf.Model`.
        Masked pixels count as 0 before, as in predictions, whatever the `default_value`.
    augment : {"d4"}, optional
        "d4" applies one of the eight symmetries of the square to each patch at random, with its margin, and
        the same one to its targets. They differ in each epoch. Only for square patches.
    one_hot : int or True, optional
        The number of classes: the targets, which must be a single band, become vectors of zeros and ones
        along the last axis. True: one more than the largest class in the manifests, also of pixels in margins
        if the targets keep them. Values that are not class
        numbers from 0 to ``one_hot - 1`` become zeros only, so that masked pixels with such a `default_value`
        do not count in a categorical cross-entropy.
    sample_weight : "mask", str or sequence of str, optional
        The weight of each pixel or example. "mask": 0 where any target band is masked or missing, otherwise
        1. Otherwise the name of a band that contains weights; several are multiplied. Masked pixels of such a
        band have the weight 0.
    class_weight : "balanced" or mapping of int to float, optional
        The weight of each class of the only target band, by which `sample_weight` is multiplied. As in
        Keras, other classes have the weight 1. Masked pixels have the weight 0. "balanced" gives all classes
        the same total weight, by the class counts in the manifests.
    default_value : float, optional
        The value of masked pixels in the records, for `normalize`, `sample_weight` and `class_weight`.
        Default: the value in the manifest, which must differ from the valid values of the targets if there
        are weights.
    patches : PatchSelection, optional
        The patches to read, for example one side of a split, from a single export of an image. The other
        records are not read, except in gzip files that other programs have compressed. Patches that the
        export does not contain are omitted.
    records : sequence of path-like, optional
        The shards of a single mixer, in order, if they are not next to it.
    patch_dimensions : int or (int, int), optional
        Width and height of the patches in pixels. Required to read patches from files without a mixer; not
        allowed with a mixer. Features that do not hold whole patches are values of the record, such as labels
        and coordinates. As targets they have the shape ``(batch, values)``; a single value that is stacked
        with patches is repeated at every pixel. Text is ignored.
    kernel_size : int or (int, int), optional
        Width and height of the kernel in pixels. Required only if it cannot be inferred from the length of
        the records.
    tensor_depths : mapping of str to int, optional
        The depths of array bands. Required only without a mixer and manifest, if the first record does not
        determine them: if several depths are possible, or if its series is not the longest. If patches are
        read, a feature with exactly this number of values per record is a label.
    num_parallel_reads : int, optional
        The number of shards or pieces to read at a time if `shuffle` or `patches` is set; otherwise shards
        are read one by one. If local records are large, batches of them are read at a time in any case.
        Default: chosen by TensorFlow.
    storage_options : mapping of str to object, optional
        Options for fsspec, for remote files.

    Returns
    -------
    tf.data.Dataset
        Elements are ``inputs``, ``(inputs, targets)`` or ``(inputs, targets, weights)``. Inputs are float32;
        targets have `target_dtype`:

        =======  ===================================  ===========================================
        unit     scalar bands only                    with array bands
        =======  ===================================  ===========================================
        "patch"  ``(batch, height, width, bands)``    ``(batch, steps, height, width, bands)``
        "pixel"  ``(batch, bands)``                   ``(batch, steps, bands)``
        =======  ===================================  ===========================================

        The size of the last axis is the number of bands. Weights are float32 and have the shape of the
        targets without the last axis. If `targets` is a mapping, they are a dictionary, too.

    Raises
    ------
    OptionError
        If a band is not found, bands have different depths, or an option is invalid.
    MissingShardError
        If a file, or a shard of a mixer, is not found.
    RecordError
        If a file is not a valid TFRecord file, its records do not match the options, or it does not match the
        manifest.

    See Also
    --------
    xee_tf.feature_spec : Return the specification with which TensorFlow parses the records.
    xee_tf.normalization : Return the numbers of `normalize`, also for predictions.

    Notes
    -----
    Series with omitted steps (``drop_masked_steps``) are padded at the end to the depth of their band with
    the ``default_value`` of the export, or with 0 if there is no mixer and no manifest. If a band has several
    additional dimensions, they are combined into one axis of steps, in the order of the records.

    In files without a mixer, records may lack features, as in tables of Earth Engine. Missing numbers are
    NaN; if `target_dtype` is an integer dtype, they raise an error. If the unit is "pixel", the labels of a
    patch are repeated for each of its pixels.

    Float lists, int64 lists and byte strings of uint8 values are supported; see `xee_tf.feature_spec`. Local
    files are read by TensorFlow, remote files by Python with fsspec, record by record. Patches of more than
    512 KiB in local files of an export are decoded by Python as they are read, which takes fewer copies;
    their shuffle buffer takes no memory.

    With a manifest, each file is compared with its checksum in the first epoch, before it is read, and again
    if it has changed; files that are read in pieces are compared piece by piece. A file that is corrupt, from
    another export, or in the place of another shard raises an
    error (of TensorFlow, if it is found while the dataset is iterated). Without a manifest, local files must
    be those that were opened, and only the records that are read to infer their features are checked. A
    later one that is not a valid Example raises an error of TensorFlow whose message contains its bytes, or
    `UnicodeDecodeError`; `xee_tf.open_table` or `xee_tf.open_image` then says which record it is, and why.

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

    Inputs that are normalized as a whole raster, and turned at random with their targets:

    >>> patches = xee_tf.tf_dataset(
    ...     result, inputs="B4", targets="label", normalize=xee_tf.band_statistics(ds), augment="d4"
    ... )
    >>> for image, label in patches:
    ...     print(image.shape, abs(float(image.numpy().max())) < 2)
    (4, 40, 40, 1) True

    Several inputs, and weights that ignore masked pixels of the label:

    >>> ds["label"] = ds["label"].where(ds["B4"] > 99)
    >>> result = ds.tfexport(f"{folder}/masked", patch_dimensions=32, default_value=-1)
    >>> patches = xee_tf.tf_dataset(
    ...     result, inputs={"image": "B4"}, targets="label", sample_weight="mask", batch_size=3
    ... )
    >>> for images, label, weights in patches:
    ...     print(images["image"].shape, label.shape, weights.shape, weights.numpy().mean().round(3))
    (3, 32, 32, 1) (3, 32, 32, 1) (3, 32, 32) 0.967
    (1, 32, 32, 1) (1, 32, 32, 1) (1, 32, 32) 1.0
    """
    with extra("tensorflow", "tf_dataset"):
        import tensorflow as tf

    from xee_tf.training.elements import Elements
    from xee_tf.training.parsing import batch_parser, feature_parser, piece_reader, shuffle_pixels
    from xee_tf.training.transforms import map_with_seeds, with_d4

    given: dict[str, Any] = {
        "inputs": inputs,
        "targets": () if targets is None else targets,
        "batch_size": batch_size,
        "shuffle": shuffle,
        "seed": seed,
        "repeat": repeat,
        "drop_remainder": drop_remainder,
        "cache": cache,
        "unit": unit,
        "margins": margins,
        "target_margins": target_margins,
        "target_dtype": target_dtype,
        "normalize": normalize,
        "augment": augment,
        "one_hot": one_hot,
        "sample_weight": sample_weight,
        "class_weight": class_weight,
        "default_value": default_value,
        "patches": patches,
        "num_parallel_reads": num_parallel_reads,
    }
    options = DatasetOptions(**given)
    reading = ReadOptions(
        records=records,
        bands=options.bands,
        patch_dimensions=patch_dimensions,
        kernel_size=kernel_size,
        tensor_depths=tensor_depths,
        storage_options=storage_options,
    )
    exports = open_exports(files_or_mixer, reading)
    check_compatible(exports)
    export = exports[0]
    unit = _unit(options.unit, export)
    margins = options.margins or ("trim" if unit == "pixel" else "keep")
    if unit == "pixel" and target_margins not in (None, margins):
        raise OptionError(
            f"target_margins={target_margins!r} differs from margins={margins!r}: if the unit is 'pixel', "
            "inputs and targets must have the same pixels. Omit target_margins."
        )
    if options.augment is not None and unit == "pixel":
        raise OptionError("augment='d4' rotates patches, but the unit is 'pixel'. Omit augment.")
    elements = Elements.of(exports, options, margins, options.target_margins or margins)

    chosen = None if patches is None else selected_records(exports, patches)
    count = _count_records(exports) if chosen is None else sum(map(len, chosen))
    raw, pieces = _records(exports, options, count, chosen)
    batch_size, drop_remainder = options.batch_size, options.drop_remainder
    orders = [each.content.layout for each in exports]
    read = feature_parser(export) if pieces is None else piece_reader(export, pieces, orders)
    parse_components = batch_parser(export, elements.components, read, flat=unit == "pixel")

    def parse(batch: Any) -> Any:
        return elements.combine(parse_components(batch))

    if unit == "patch" or export.content.unit == "pixel":
        data = raw.batch(batch_size, drop_remainder=drop_remainder)
        calls = tf.data.AUTOTUNE if pieces is None else options.num_parallel_reads or tf.data.AUTOTUNE
        data = data.map(parse, num_parallel_calls=calls, deterministic=True)
        if options.augment is not None:
            data = with_d4(data, options.seed)
    else:
        values = sum(len(each.bands) * (each.depth or 1) for each in elements.components)
        pixels = min(_POOL_PIXELS, _POOL_BYTES // (4 * values))
        pool = raw.batch(max(1, pixels // export.stored.pixels))
        data = pool.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        if options.shuffle:
            data = map_with_seeds(shuffle_pixels, data, options.seed)
        data = data.rebatch(batch_size, drop_remainder=drop_remainder)
        if count is not None and options.repeat is not True:
            total = count * export.area(margins).pixels * int(options.repeat or 1)
            steps = total // batch_size if drop_remainder else -(-total // batch_size)
            data = data.apply(tf.data.experimental.assert_cardinality(steps))
    if not elements.plain:
        data = data.map(elements.pack)
    return data.prefetch(tf.data.AUTOTUNE)


def _records(
    exports: Sequence[OpenedExport],
    options: DatasetOptions,
    count: int | None,
    chosen: Sequence[NDArray[np.int64]] | None,
) -> tuple[tf.data.Dataset, Pieces | None]:
    """Return the records, all or those chosen of each shard: cached, shuffled and repeated.

    They are serialized; or the numbers of pieces, which are returned, too, if each is a record of a patch
    that is read and decoded as a part of its batch.
    """
    with extra("tensorflow", "tf_dataset"):
        import tensorflow as tf

    from xee_tf.training.stream import piece_numbers, serialized_records

    shards = [shard for each in exports for shard in each.shards]
    if chosen is not None:
        shards = [shard for shard, numbers in zip(shards, chosen, strict=True) if len(numbers)]
        chosen = [numbers for numbers in chosen if len(numbers)]
    shuffle, cache = options.shuffle, options.cache
    # Records in memory are shuffled as a whole afterwards.
    order: Literal["order", "interleave", "shuffle"] = "order"
    if shuffle:
        order = "interleave" if cache is True else "shuffle"
    pieces = cut_pieces(shards, exports[0].record_bytes, chosen)
    decoded = None if cache or pieces is None or not _is_decoded(exports, pieces) else pieces
    if decoded is not None:
        raw = piece_numbers(decoded, order, options.seed)
    else:
        raw = serialized_records(
            shards,
            order,
            options.seed,
            options.num_parallel_reads,
            pieces=pieces if shuffle or chosen else None,
            caches=cache_files(cache, shards, chosen) if isinstance(cache, str) else None,
            chosen=chosen,
        )
    if count is not None:
        # Shows the length in progress bars, and raises an error if records have been lost since.
        raw = raw.apply(tf.data.experimental.assert_cardinality(count))
    if cache is True:
        raw = raw.cache()
    if shuffle:
        size = max(1, _SHUFFLE_BYTES // exports[0].record_bytes) if shuffle is True else shuffle
        if cache is True and count is not None:
            size = count  # the buffer holds references to the records of the cache
        raw = raw.shuffle(min(size, count or size), seed=options.seed)
    if options.repeat:
        raw = raw.repeat(None if options.repeat is True else options.repeat)
    return raw, decoded


def _is_decoded(exports: Sequence[OpenedExport], pieces: Pieces) -> bool:
    """Return whether records are decoded as they are read: patches of known layout in local files.

    Each must be a piece, so that the shuffled order is one of records.
    """
    known = all(each.described and each.layout.sequences is None for each in exports)
    patches = exports[0].content.unit == "patch" and exports[0].record_bytes >= _LEAST_DECODED
    return known and patches and pieces.single and all(shard.location.is_local for shard in pieces.shards)


def _count_records(exports: Sequence[OpenedExport]) -> int | None:
    """Return the number of records in all exports, or None if it is unknown."""
    counts = [export.records for export in exports if export.records is not None]
    return sum(counts) if len(counts) == len(exports) else None


def _unit(unit: Unit | None, export: OpenedExport) -> Unit:
    """Return the unit of an example; raise an error if it does not match the records."""
    if export.content.unit == "pixel":
        if unit == "patch" and not export.described and any(band.dims for band in export.bands):
            raise _unknown_shape(export)
        if unit == "patch":
            raise OptionError(
                f"unit='patch' requires patches, but each record of {export} is a single pixel or a row of "
                "a table: omit unit, or export patches without sequence_data."
            )
        return "pixel"
    if unit != "pixel" and export.content.unit is None:
        raise _unknown_shape(export)
    return unit or "patch"


def _unknown_shape(export: OpenedExport) -> OptionError:
    """Return the error for shards of patches without a mixer."""
    shard = export.shards[0].location
    mixer = mixer_of(shard)
    named = "" if mixer is None else f" ({mixer})"
    return OptionError(
        f"The shape of the patches in {shard} is unknown: pass the mixer{named} instead of the shards, or "
        "patch_dimensions=(width, height)."
    )
