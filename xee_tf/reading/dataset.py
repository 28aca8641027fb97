"""Records as a `tf.data.Dataset` of channels-last tensors, ready for ``model.fit``.

TensorFlow does all the work, in batches: reading, inflating, parsing and stacking run in its own
threads. Python only says what to do. TensorFlow itself is imported when a function is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from fsspec.implementations.local import LocalFileSystem
from isal import igzip

from xee_tf.errors import OptionError
from xee_tf.reading.shards import Shard
from xee_tf.reading.sources import Source, Sources, open_sources
from xee_tf.records.framing import FOOTER, HEADER, check_data, read_length
from xee_tf.storage import PathLike

if TYPE_CHECKING:
    import tensorflow as tf

__all__ = ["Margins", "Unit", "feature_spec", "tf_dataset"]

Unit = Literal["patch", "pixel"]
Margins = Literal["keep", "trim"]

_SHUFFLE_BYTES = 256 << 20  # what a shuffle buffer may hold where its size is left to us
_POOL_PIXELS = 1 << 20  # pixels parsed together, and mixed with one another, where they are the unit
_OPEN_FILES = 16  # shards that a shuffled read draws from at a time
_READ_BYTES = 8 << 20


def tf_dataset(
    files_or_mixer: Sources,
    *,
    inputs: str | Sequence[str],
    targets: str | Sequence[str] | None = None,
    batch_size: int = 32,
    shuffle: bool | int = False,
    seed: int | None = None,
    repeat: bool | int = False,
    drop_remainder: bool = False,
    unit: Unit = "patch",
    margins: Margins | None = None,
    target_margins: Margins | None = None,
    target_dtype: Any = "float32",
    records: Sequence[PathLike] | None = None,
    patch_dimensions: int | Sequence[int] | None = None,
    kernel_size: int | Sequence[int] | None = None,
    num_parallel_reads: int | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """Exported patches as a `tf.data.Dataset` for training, evaluation or prediction.

    Parameters
    ----------
    files_or_mixer : str, path-like or sequence of them
        A mixer (``scene-mixer.json``): its shards are found beside it, and a missing record is an
        error. Or TFRecord files, or a pattern such as ``"out/scene-*.tfrecord.gz"``. Several exports
        are read one after the other (mixed, where shuffled) if their stored patches are alike.
    inputs : str or sequence of str
        Bands that the model sees, in the order of the last axis.
    targets : str or sequence of str, optional
        Bands that the model learns. Without them, elements are the inputs alone.
    batch_size : int
        Patches, or pixels, in an element.
    shuffle : bool or int
        False: the order of the records, exactly. A number: files in random order, and so many
        records in a shuffle buffer. True: as many as 256 MiB hold. Each epoch differs.
    seed : int, optional
        Makes a shuffled order the same in every run.
    repeat : bool or int
        True: without end. A number: so many epochs in one.
    drop_remainder : bool
        Leave out a last element that is smaller than `batch_size`.
    unit : {"patch", "pixel"}
        What an example is: a patch, or each of its pixels by itself, row-major.
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
        Needed for patches from files without a mixer. Never with a mixer.
    kernel_size : int or (width, height), optional
        Where it cannot be told from the length of the records.
    num_parallel_reads : int, optional
        Shards read at a time when shuffled. Default: TensorFlow decides. In order, they are
        read one by one.
    storage_options : mapping, optional
        Handed to fsspec.

    Returns
    -------
    tf.data.Dataset
        Elements are ``inputs`` or ``(inputs, targets)``: float32 tensors of shape
        ``(batch, height, width, bands)``, or ``(batch, bands)`` for pixels.

    Raises
    ------
    OptionError
        If a band is not in the records, or an option cannot be used.
    MissingShardError
        If shards of a mixer are not there.

    Notes
    -----
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
    import tensorflow as tf

    input_names, target_names = _names("inputs", inputs), _names("targets", targets)
    _check_choice("unit", unit, ("patch", "pixel"))
    _check_choice("margins", margins, ("keep", "trim", None))
    _check_choice("target_margins", target_margins, ("keep", "trim", None))
    for name, number, least in (
        ("batch_size", batch_size, 1),
        ("num_parallel_reads", 1 if num_parallel_reads is None else num_parallel_reads, 1),
        ("shuffle", shuffle, 0),
        ("repeat", repeat, 0),
    ):
        if number < least:
            raise OptionError(f"{name} must be at least {least}; got {number!r}.")
    margins = margins or ("trim" if unit == "pixel" else "keep")
    if unit == "pixel" and target_margins not in (None, margins):
        raise OptionError("target_margins differ from margins: the pixels of inputs and targets must match.")

    sources = open_sources(
        files_or_mixer,
        records=records,
        bands=list(dict.fromkeys([*input_names, *target_names])),
        patch_dimensions=patch_dimensions,
        kernel_size=kernel_size,
        storage_options=storage_options,
    )
    source = sources[0]
    for other in sources:
        if other.content != source.content:
            raise OptionError(
                f"The exports do not go together: {source} holds {source.content}, {other} holds "
                f"{other.content}. Export them with the same options, or make a dataset of each."
            )
    if unit == "patch" and not source.shaped:
        raise OptionError(
            f"Nothing tells the shape of the patches in {source}: give the mixer instead of its files, or "
            "patch_dimensions=(width, height)."
        )

    count = _total(sources)
    raw = _read([shard for each in sources for shard in each.shards], shuffle, seed, num_parallel_reads)
    if count is not None:
        # Progress bars know where they are, and a record that went missing since is an error.
        raw = raw.apply(tf.data.experimental.assert_cardinality(count))
    if shuffle:
        room = max(1, _SHUFFLE_BYTES // source.record_bytes) if shuffle is True else int(shuffle)
        raw = raw.shuffle(min(room, count or room), seed=seed)
    if repeat:
        raw = raw.repeat(None if repeat is True else int(repeat))

    sides = [(input_names, margins == "trim", "float32")]
    if target_names:
        sides.append((target_names, (target_margins or margins) == "trim", target_dtype))
    parse = _parser(source, sides, flat=unit == "pixel")
    if unit == "patch":
        data = raw.batch(batch_size, drop_remainder=drop_remainder)
        data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    else:
        pool = raw.batch(max(1, _POOL_PIXELS // source.stored.pixels))
        data = pool.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        if shuffle:
            seeds = tf.data.Dataset.random(seed, rerandomize_each_iteration=True).batch(2)
            data = tf.data.Dataset.zip(data, seeds).map(_mix, num_parallel_calls=tf.data.AUTOTUNE)
        data = data.rebatch(batch_size, drop_remainder=drop_remainder)
        if count is not None and repeat is not True:
            area = source.core if margins == "trim" else source.stored
            pixels = count * area.pixels * int(repeat or 1)
            steps = pixels // batch_size if drop_remainder else -(-pixels // batch_size)
            data = data.apply(tf.data.experimental.assert_cardinality(steps))
    if not target_names:
        data = data.map(lambda image: image)
    return data.prefetch(tf.data.AUTOTUNE)


def feature_spec(
    files_or_mixer: Sources,
    *,
    bands: Sequence[str] | None = None,
    records: Sequence[PathLike] | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """How `tf.io.parse_example` has to read the records of an export.

    Kinds and lengths are those of the first record. A float or int64 list has the shape (height, width),
    margins included, where a mixer tells it, and else (values,). A byte band is one string a record:
    ``tf.io.decode_raw(value, tf.uint8)``.

    Parameters
    ----------
    files_or_mixer, records, storage_options
        As in `tf_dataset`.
    bands : sequence of str, optional
        Default: all, in the order of the record.

    Returns
    -------
    dict
        Name to `tf.io.FixedLenFeature`.
    """
    [source, *_] = open_sources(files_or_mixer, records=records, bands=bands, storage_options=storage_options)
    return _spec(source)


def _total(sources: Sequence[Source]) -> int | None:
    """Records in all sources, if mixers tell."""
    counts = [source.records for source in sources if source.records is not None]
    return sum(counts) if len(counts) == len(sources) else None


def _spec(source: Source) -> dict[str, Any]:
    import tensorflow as tf

    kinds = {"float": tf.float32, "int64": tf.int64}
    spec = {}
    for feature in source.features:
        if feature.kind == "bytes":
            spec[feature.name] = tf.io.FixedLenFeature([], tf.string)
        else:
            shape = source.stored.shape if source.shaped else (feature.size,)
            spec[feature.name] = tf.io.FixedLenFeature(shape, kinds[feature.kind])
    return spec


def _read(
    shards: Sequence[Shard], shuffle: bool | int, seed: int | None, parallel: int | None
) -> tf.data.Dataset:
    """Serialised records: in exact order, or from several files at a time if shuffled."""
    import tensorflow as tf

    numbers = tf.data.Dataset.range(len(shards))
    if not shuffle:
        return numbers.flat_map(_shard_reader(shards))
    return numbers.shuffle(len(shards), seed=seed).interleave(
        _shard_reader(shards),
        cycle_length=min(len(shards), parallel or _OPEN_FILES),
        num_parallel_calls=parallel or tf.data.AUTOTUNE,
        deterministic=seed is not None,
    )


def _shard_reader(shards: Sequence[Shard]) -> Callable[[Any], tf.data.Dataset]:
    """A function from the number of a shard to its records."""
    import tensorflow as tf

    if not all(isinstance(shard.location.fs, LocalFileSystem) for shard in shards):
        return lambda number: tf.data.Dataset.from_generator(
            lambda index: _stream(shards[index]),
            args=(number,),
            output_signature=tf.TensorSpec((), tf.string),
        )
    paths = tf.constant([shard.location.path for shard in shards])
    kinds = tf.constant(["" if shard.access == "plain" else "GZIP" for shard in shards])
    return lambda number: tf.data.TFRecordDataset(paths[number], kinds[number], buffer_size=_READ_BYTES)


def _stream(shard: Shard) -> Iterator[bytes]:
    """The records of one shard, one by one, their checksums compared."""
    with shard.location.open() as file:
        source = file if shard.access == "plain" else igzip.open(file)  # type: ignore[no-untyped-call]
        number = 0
        while head := source.read(HEADER):
            length = read_length(memoryview(head), 0, number, str(shard))
            frame = memoryview(head + source.read(length + FOOTER))
            yield bytes(check_data(frame, 0, length, number, str(shard)))
            number += 1


def _parser(
    source: Source, sides: Sequence[tuple[Sequence[str], bool, Any]], *, flat: bool
) -> Callable[[Any], Any]:
    """A function from a batch of serialised records to one tensor for each side, bands last.

    A side is (bands, whether margins are trimmed, dtype).
    """
    import tensorflow as tf

    spec = _spec(source)
    height, width = source.stored.shape
    top, left = source.margin.shape

    def pixels(values: Any) -> Any:
        if values.dtype == tf.string:
            values = tf.io.decode_raw(values, tf.uint8)
        return tf.reshape(values, (-1, height, width))

    def parse(batch: Any) -> Any:
        values = tf.io.parse_example(batch, spec)
        tensors = []
        for names, trim, dtype in sides:
            tensor = tf.stack([tf.cast(pixels(values[name]), dtype) for name in names], axis=-1)
            if trim:
                tensor = tensor[:, top : height - top, left : width - left]
            tensors.append(tf.reshape(tensor, (-1, len(names))) if flat else tensor)
        return tuple(tensors)

    return parse


def _mix(tensors: Any, seed: Any) -> Any:
    """The same random order for the pixels of all tensors."""
    import tensorflow as tf

    count = tf.shape(tensors[0])[0]
    order = tf.random.experimental.stateless_shuffle(tf.range(count), seed)
    return tuple(tf.gather(tensor, order) for tensor in tensors)


def _names(option: str, names: str | Sequence[str] | None) -> list[str]:
    listed = [] if names is None else [names] if isinstance(names, str) else list(names)
    if option == "inputs" and not listed:
        raise OptionError("inputs is empty: name at least one band.")
    for name in listed:
        if listed.count(name) > 1:
            raise OptionError(f"{option} names the band {name!r} twice.")
    return listed


def _check_choice(name: str, value: object, allowed: Sequence[object]) -> None:
    if value not in allowed:
        raise OptionError(f"{name} must be one of {', '.join(map(repr, allowed))}; got {value!r}.")
