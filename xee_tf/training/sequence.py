"""Batches of patches for Keras, straight from a lazy raster."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xee_tf.display import counted
from xee_tf.dtypes import DTYPE_ERRORS
from xee_tf.errors import OptionError
from xee_tf.export import ExportOptions, ExportSource, Image
from xee_tf.extras import extra
from xee_tf.geometry import PatchGrid
from xee_tf.options import READ_SPELLING, check_flags, one_of, show_signature, spelled
from xee_tf.reading import Margins
from xee_tf.records import FeatureTypes
from xee_tf.sampling import PatchSelection
from xee_tf.sidecars import BandSpec
from xee_tf.training.block_memory import Masks
from xee_tf.training.checks import (
    check_count,
    check_seed,
    dtype_error,
    generator,
    require_single_target,
    require_square,
    require_targets,
    whole_number,
)
from xee_tf.training.groups import Bands, Groups, group_names, pack, read_groups
from xee_tf.training.normalizing import Normalize, Scales, offsets_and_scales, read_scales
from xee_tf.training.patches import Patches, Stored, plan_patches, reader_of, specs_of
from xee_tf.training.weighting import SampleWeight, Weighting

__all__ = ["PatchSequence"]

_AHEAD = 2  # batches that each worker may be ahead of the first one that was not requested

_CLASSES: dict[type, type] = {}  # with Keras, by the class without it


class PatchSequence:
    """Batches of patches straight from a lazy raster: a `keras.utils.PyDataset`, without files.

    The arrays are those that `xee_tf.tf_dataset` reads from an export of the raster with the same options.
    All backends of Keras can use them, and TensorFlow is not imported. Tested with the backends TensorFlow
    and JAX.

    Parameters
    ----------
    image : Dataset, DataArray or sequence of them
        The raster, as for `xee_tf.export_image`.
    inputs : str, sequence of str, or mapping of str to these
        Bands that are the input of the model, in the order of the last axis. All array bands must have the
        same depth; scalar bands among them are repeated at every step. For a model with several inputs, a
        mapping such as ``{"image": ["B4", "B3"], "terrain": ["slope"]}``, which gives a dictionary of arrays.
    targets : str, sequence of str, or mapping of str to these, optional
        Bands that the model predicts, stacked in the same way. By default, batches are only the inputs.
    batch_size : int, default 32
        The number of patches in a batch.
    shuffle : bool, default True
        Whether the order is random and differs in each epoch. Patches are shuffled within groups of blocks
        of chunks that together take up a fifth of `memory`; the blocks of a group come from several parts of
        a large raster. False keeps the order of the patches, as for ``model.predict``.
    seed : int, optional
        The random seed. It makes the shuffled order reproducible.
    drop_remainder : bool, default False
        Whether to omit the last batch if it is smaller than `batch_size`.
    margins : {"keep", "trim"}, default "keep"
        Whether to keep the margin that `kernel_size` adds to patches.
    target_margins : {"keep", "trim"}, optional
        Whether to keep the margin in the targets. Default: the same as `margins`.
    target_dtype : dtype, default "float32"
        The dtype of the targets. Integer dtypes keep class numbers exact.
    normalize : Dataset or mapping of str to (float, float), optional
        The result of `xee_tf.band_statistics` or `xee_tf.normalization`, or an offset and a scale for each
        input band: ``(value - offset) / scale``; see `xee_tf.tf_dataset`. Masked pixels count as 0 before,
        whatever the `default_value`.
    augment : {"d4"}, optional
        "d4" applies one of the eight symmetries of the square to each patch at random, and the same one to
        its targets. They differ in each epoch. Only for square patches.
    one_hot : int, optional
        The number of classes: the target, a single band, becomes vectors of zeros and ones along the last
        axis; see `xee_tf.tf_dataset`.
    sample_weight : "mask", str or sequence of str, optional
        The weight of each pixel of the targets. "mask": 0 where any target band is masked, otherwise 1.
        Otherwise the name of a band that contains weights; several are multiplied.
    class_weight : mapping of int to float, optional
        The weight of each class of the only target band; see `xee_tf.tf_dataset`. Masked pixels have the
        weight 0.
    patch_dimensions : int or (int, int), default (256, 256)
        Width and height of a patch in pixels, without its margin.
    kernel_size : int or (int, int), default 1
        Width and height of the kernel in pixels: a patch includes a margin of half the kernel on every side.
    default_value : float, default 0
        Value for pixels that are masked, by NaN, nodata or `mask`, or outside the raster.
    tensor_depths : mapping of str to int, or sequence of int, optional
        Depth of each array band; see `xee_tf.export_image`.
    feature_types : {"float", "band"}, default "float"
        See `xee_tf.open_patches`. "band" keeps integers exact that float32 does not.
    edge : {"drop", "pad"}, default "drop"
        Whether incomplete patches at the right and bottom edges are dropped, or padded with `default_value`.
    mask : DataArray or str, optional
        Boolean array, true where pixels are masked in all bands; or the name of such a variable of `image`.
    region : tuple or GeoJSON-like, optional
        Part of the raster; see `xee_tf.export_image`.
    region_crs : CRS or str or int, optional
        CRS of `region`.
    crs : CRS or str or int, optional
        CRS of the image, if it has none or a wrong one.
    transform : Affine or sequence of float, optional
        Affine transform of the image, if it has none or a wrong one.
    patches : PatchSelection or sequence of int, optional
        The patches to read, for example one side of `xee_tf.split_patches`; see `xee_tf.open_patches`.
    memory : int or str, default "1 GiB"
        Maximum size of the pixels that are kept in memory, in bytes or as text. More memory mixes the
        patches of more blocks.
    workers : int, default 1
        Number of threads of Keras that prepare batches.
    max_queue_size : int, default 10
        Number of batches that Keras prepares ahead if there are several workers.

    Raises
    ------
    OptionError
        If a band is not found, bands have different depths, an option is invalid, or `memory` is too small
        for the chunks of the raster.
    GeoreferenceError
        If the image has no usable georeference.
    GridMismatchError
        If `patches` selects patches of another grid.
    MissingExtraError
        If Keras is not installed.

    See Also
    --------
    xee_tf.open_patches : Patches as numpy arrays, without Keras.
    xee_tf.tf_dataset : Batches from an export, which is faster if a raster is read in many epochs.

    Notes
    -----
    Each chunk is loaded about once in an epoch, by Dask with its current scheduler, while the model is
    trained with the patches of other chunks.

    ``model.fit`` requests batches in random order unless it is called with ``shuffle=False``. With
    ``shuffle=True`` here, batches are therefore numbered in the order in which they are requested: every
    patch is in one batch of each epoch, whatever the order. With ``shuffle=False`` here, batch i has the
    patches ``i * batch_size`` and following; pass ``shuffle=False`` to ``model.fit``, too, or chunks are
    loaded again and again. `on_epoch_end`, which Keras calls, begins the next epoch: call it after each epoch
    of a loop of your own.

    Keras's ``use_multiprocessing`` is not supported: each process would load all chunks.

    Examples
    --------
    >>> import keras, numpy as np, xarray as xr, xee_tf
    >>> x, y = 7e5 + 30 * np.arange(64.0), 5e6 - 30 * np.arange(64.0)
    >>> band = (("y", "x"), np.arange(64 * 64, dtype="float32").reshape(64, 64))
    >>> ds = xr.Dataset({"B4": band, "label": band}, coords={"x": x, "y": y}, attrs={"crs": "EPSG:32633"})
    >>> patches = xee_tf.PatchSequence(
    ...     ds.chunk(32), inputs=["B4"], targets="label", patch_dimensions=16, kernel_size=8, batch_size=10
    ... )
    >>> len(patches), [(image.shape, label.shape) for image, label in patches]
    (2, [((10, 24, 24, 1), (10, 24, 24, 1)), ((6, 24, 24, 1), (6, 24, 24, 1))])
    >>> model = keras.Sequential([keras.layers.Conv2D(1, 3, padding="same")])
    >>> model.compile("adam", "mse")
    >>> history = model.fit(patches, epochs=2, verbose=0)
    """

    if TYPE_CHECKING:  # the methods of keras.utils.PyDataset
        num_batches: int

    def __new__(cls, *args: Any, **options: Any) -> PatchSequence:
        """Create an object that is also a `keras.utils.PyDataset`; Keras is not imported before."""
        created: PatchSequence = object.__new__(_with_keras(cls))
        return created

    @spelled(READ_SPELLING)
    def __init__(
        self,
        image: Image,
        *,
        inputs: Bands,
        targets: Bands | None = None,
        batch_size: int = 32,
        shuffle: bool = True,
        seed: int | None = None,
        drop_remainder: bool = False,
        margins: Margins = "keep",
        target_margins: Margins | None = None,
        target_dtype: Any = "float32",
        normalize: Normalize | None = None,
        augment: Literal["d4"] | None = None,
        one_hot: int | None = None,
        sample_weight: SampleWeight | None = None,
        class_weight: Mapping[int, float] | None = None,
        patch_dimensions: int | Sequence[int] = (256, 256),
        kernel_size: int | Sequence[int] = 1,
        default_value: float = 0,
        tensor_depths: Mapping[str, int] | Sequence[int] | None = None,
        feature_types: FeatureTypes = "float",
        edge: Literal["drop", "pad"] = "drop",
        mask: str | xr.DataArray | None = None,
        region: Any = None,
        region_crs: Any = None,
        crs: Any = None,
        transform: Any = None,
        patches: PatchSelection | Sequence[int] | None = None,
        memory: int | str = "1 GiB",
        workers: int = 1,
        max_queue_size: int = 10,
    ) -> None:
        self._inputs = read_groups(inputs, "inputs")
        self._targets = (
            {} if targets is None else read_groups(targets, "targets", ["landcover"], allow_empty=True)
        )
        target_names = group_names(self._targets)
        one_of("margins", margins, ("keep", "trim"))
        one_of("target_margins", target_margins, ("keep", "trim", None))
        one_of("augment", augment, ("d4", None))
        check_flags(shuffle=shuffle, drop_remainder=drop_remainder)
        self._batch_size = check_count(batch_size, "batch_size")
        self._seed = None if seed is None else check_seed(seed, "seed")
        self._workers_ahead = _AHEAD * max(1, whole_number(0)(workers, "workers"))
        scales = None if normalize is None else _read_scales(normalize)
        if one_hot is True:
            raise OptionError(
                "one_hot=True needs the class counts of an export; a raster has none. Pass the number of "
                "classes, for example one_hot=5."
            )
        if one_hot is not None:
            one_hot = check_count(one_hot, "one_hot")
            require_single_target("one_hot", one_hot, self._targets)
        kept = _numeric_dtype(target_dtype)
        options = ExportOptions(
            patch_dimensions=patch_dimensions,  # type: ignore[arg-type]  # converted by its check
            kernel_size=kernel_size,  # type: ignore[arg-type]
            default_value=default_value,
            tensor_depths=tensor_depths,
            feature_types=feature_types,
            edge=edge,
        )
        source = ExportSource(region=region, region_crs=region_crs, mask=mask, crs=crs, transform=transform)
        weighting = _read_weighting(sample_weight, class_weight, self._targets)
        weights = () if weighting is None else weighting.bands
        names = list(dict.fromkeys([*group_names(self._inputs), *target_names, *weights]))
        self._patches = plan_patches(image, names, options, source, patches, memory)
        bands = dict(zip(self._patches.bands, specs_of(self._patches), strict=True))
        given = [_Stack.of(bands, each, np.dtype("float32"), scales) for each in self._inputs.values()]
        wanted = [_Stack.of(bands, each, kept) for each in self._targets.values()]
        stacks: list[_Stack | _Weights] = [*given, *wanted]
        if weighting is not None:
            stacks += [_Weights.of(bands, stack, weighting) for stack in wanted]
        self._trims = [margins == "trim"] * len(given)
        self._trims += [(target_margins or margins) == "trim"] * (len(stacks) - len(given))
        self._one_hot, self._augment = one_hot, augment
        self._depths = [stack.depth for stack in stacks]
        if augment is not None:
            grid = self._patches.grid
            for trim in self._trims:
                require_square(grid.patch if trim else grid.stored)
        self._reader = reader_of(
            self._patches,
            [stack.stored for stack in stacks],
            _Stacking(self._patches.bands, stacks),
            want_masks=weighting is not None or any(any(stack.masked) for stack in given if scales),
        )
        count = len(self._patches)
        self._length = count // self._batch_size if drop_remainder else -(-count // self._batch_size)
        self._shuffle, self._epoch, self._lock = shuffle, -1, threading.Lock()
        self.on_epoch_end()
        keras_options = {"workers": workers, "max_queue_size": max_queue_size}
        super().__init__(**keras_options)

    @property
    def grid(self) -> PatchGrid:
        """The grid of patches over the raster."""
        return self._patches.grid

    @property
    def selection(self) -> PatchSelection:
        """The patches as a selection."""
        return self._patches.selection

    def __reduce__(self) -> Any:
        """Raise an error: it has threads."""
        raise TypeError("A PatchSequence cannot be pickled: create one in each process.")

    @property
    def numbers(self) -> NDArray[np.int64]:
        """The numbers of the patches in the grid."""
        return self._patches.numbers

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Any:
        """Return a batch: ``inputs``, ``(inputs, targets)`` or ``(inputs, targets, weights)``."""
        index = range(self._length)[index]  # raises an IndexError
        with ExitStack() as stack:
            with self._lock:
                order, epoch = self._order, self._epoch
                place = self._place(index) if self._shuffle else index
                begin = place * self._batch_size
                end = min(begin + self._batch_size, len(self._patches))
                turn = stack.enter_context(self._reader.turn(order, begin, end))
            self._reader.load(turn, order, begin, end)
            arrays = self._reader.read(order.positions[begin:end], self._trims)
        arrays = [
            array[:, 0] if depth is None else array for array, depth in zip(arrays, self._depths, strict=True)
        ]
        if self._one_hot is not None:
            target = arrays[len(self._inputs)]
            classes = target.astype("int64") == np.arange(self._one_hot)
            arrays[len(self._inputs)] = classes.astype(target.dtype)
        if self._augment is not None:
            arrays = _turned(arrays, generator(self._seed, epoch, place, 1))
        first = len(self._inputs)
        last = first + len(self._targets)
        found = pack(self._inputs, arrays[:first])
        if not self._targets:
            return found
        targets = pack(self._targets, arrays[first:last])
        if len(arrays) == last:
            return found, targets
        return found, targets, pack(self._targets, [weight[..., 0] for weight in arrays[last:]])

    def on_epoch_end(self) -> None:
        """Begin the next epoch; Keras calls it."""
        with self._lock:
            if self._shuffle or self._epoch < 0:
                self._order = self._reader.order(self._shuffle, self._seed, self._epoch + 1)
            self._epoch += 1
            self._place_of: dict[int, int] = {}
            self._taken: set[int] = set()
            self._first_free = 0

    def _place(self, index: int) -> int:
        """Return the place of a requested batch in the order: its own one, or the first that is free.

        `model.fit` requests batches in random order by default, and from several threads.
        """
        if index not in self._place_of:
            near = index - self._first_free < self._workers_ahead
            place = (
                index if near and index >= self._first_free and index not in self._taken else self._first_free
            )
            self._place_of[index] = place
            self._taken.add(place)
            while self._first_free in self._taken:
                self._taken.remove(self._first_free)
                self._first_free += 1
        return self._place_of[index]

    def _repr_html_(self) -> str:
        summary = self._patches._summary()
        rows = [("batches", f"{self._length:,} of up to {self._batch_size:,}"), *summary.rows]
        return replace(summary, name="PatchSequence", rows=rows).html()

    def __repr__(self) -> str:
        return f"<xee_tf.PatchSequence: {counted(self._length, 'batch', 'batches')} from {self._patches!r}>"


# Notebooks would show that of __new__.
show_signature(
    PatchSequence,
    inspect.Signature(list(inspect.signature(PatchSequence.__init__).parameters.values())[1:]),
)


def patches_of(source: Patches | PatchSequence) -> Patches:
    """Return the patches of a raster that a sequence makes batches of."""
    return source._patches if isinstance(source, PatchSequence) else source


def _with_keras(cls: type) -> Any:
    """Return a class, or a subclass of it that is also a `keras.utils.PyDataset`."""
    with extra("tensorflow", "PatchSequence"):
        import keras

    if issubclass(cls, keras.utils.PyDataset):
        return cls
    if cls in _CLASSES:
        return _CLASSES[cls]
    names = {"__module__": cls.__module__, "__qualname__": cls.__qualname__, "__doc__": cls.__doc__}
    _CLASSES[cls] = type(cls.__name__, (cls, keras.utils.PyDataset), names)
    return _CLASSES[cls]


class _Stack:
    """Bands that are stacked on the last axis."""

    def __init__(
        self,
        names: Sequence[str],
        specs: Sequence[BandSpec],
        dtype: np.dtype[Any],
        scaling: NDArray[np.float32] | None,
    ) -> None:
        self.names, self.dtype, self.scaling = names, dtype, scaling
        self.masked = [spec.default for spec in specs]
        self.depth = next((spec.depth for spec in specs if spec.dims), None)
        self.stored = Stored((len(names),), self.depth or 1, dtype)

    @classmethod
    def of(
        cls,
        bands: Mapping[str, BandSpec],
        names: Sequence[str],
        dtype: np.dtype[Any],
        scales: Scales | None = None,
    ) -> _Stack:
        """Create a stack from the names of bands; raise an error if the bands cannot be stacked."""
        specs = [bands[name] for name in names]
        depths = {spec.name: spec.depth for spec in specs if spec.dims}
        if len(set(depths.values())) > 1:
            raise OptionError(
                f"Bands of different depths cannot be stacked; got the depths {depths}. Use equal "
                "tensor_depths, or read them with xee_tf.open_patches."
            )
        return cls(names, specs, dtype, None if scales is None else offsets_and_scales(scales, names))


class _Weights:
    """The weights of the pixels of a stack of targets, on a last axis of 1."""

    def __init__(self, targets: _Stack, weighting: Weighting) -> None:
        self.targets, self.weighting, self.depth = targets, weighting, targets.depth
        self.stored = Stored((1,), targets.stored.depth, np.dtype("float32"))

    @classmethod
    def of(cls, bands: Mapping[str, BandSpec], targets: _Stack, weighting: Weighting) -> _Weights:
        """Create the weights of targets; raise an error if a band of weights has other steps."""
        for name in weighting.bands:
            if bands[name].dims and bands[name].depth != targets.depth:
                raise OptionError(
                    f"sample_weight={name!r} has {bands[name].depth} steps, but the targets have "
                    f"{targets.depth or 'none'}. Select one step, or use weights with the same steps."
                )
        return cls(targets, weighting)

    def fill(
        self, bands: Mapping[str, NDArray[Any]], masks: Mapping[str, NDArray[np.bool_]]
    ) -> NDArray[np.float32]:
        """Return the weights (step, y, x, 1) of the pixels of a block."""
        names, weighting = self.targets.names, self.weighting
        out = np.ones((self.stored.depth, *bands[names[0]].shape[1:], 1), np.float32)
        weights = out[..., 0]
        if weighting.mask or weighting.classes is not None:
            for name in names:
                weights *= ~masks[name]
        for name in weighting.bands:
            weights *= np.where(masks[name], 0, bands[name])
        if isinstance(weighting.classes, Mapping):
            classes = bands[names[0]]
            for value, weight in weighting.classes.items():
                weights[np.broadcast_to(classes == value, weights.shape)] *= weight
        return out


class _Stacking:
    """Converts the bands of a block, arrays (step, y, x), to stacks (step, y, x, band) and to weights."""

    def __init__(self, bands: Sequence[str], stacks: Sequence[_Stack | _Weights]) -> None:
        self._bands, self._stacks = bands, stacks

    def __call__(self, bands: list[NDArray[Any]], masks: Masks) -> list[NDArray[Any]]:
        by_name = dict(zip(self._bands, bands, strict=True))
        masks_by_name = dict(zip(self._bands, masks or (), strict=masks is not None))
        stacked: list[NDArray[Any]] = []
        for stack in self._stacks:
            if isinstance(stack, _Weights):
                stacked.append(stack.fill(by_name, masks_by_name))
                continue
            shape = by_name[stack.names[0]].shape[1:]
            out = np.empty((stack.stored.depth, *shape, len(stack.names)), stack.dtype)
            for place, name in enumerate(stack.names):
                values = by_name[name]
                if stack.scaling is not None and stack.masked[place]:
                    values = np.where(masks_by_name[name], 0, values)
                with np.errstate(invalid="ignore", over="ignore"):  # infinite values in integers, as usual
                    out[..., place] = values  # a scalar band is repeated at every step
            if stack.scaling is not None:
                out -= stack.scaling[0]
                out /= stack.scaling[1]
            stacked.append(out)
        return stacked


def _turned(arrays: list[NDArray[Any]], random: np.random.Generator) -> list[NDArray[Any]]:
    """Apply one of the eight symmetries of the square to each patch (..., y, x, band) at random."""
    codes = random.integers(8, size=len(arrays[0]))
    for array in arrays:
        for code in range(1, 8):
            chosen = np.flatnonzero(codes == code)
            if not len(chosen):
                continue
            part = array[chosen]
            if code & 1:
                part = part[..., ::-1, :, :]
            if code & 2:
                part = part[..., ::-1, :]
            if code & 4:
                part = part.swapaxes(-3, -2)
            array[chosen] = part
    return arrays


def _read_weighting(sample_weight: Any, class_weight: Any, targets: Groups) -> Weighting | None:
    weighting = Weighting.of(sample_weight, class_weight)
    if weighting is None:
        return None
    require_targets(weighting, targets)
    if weighting.classes == "balanced":
        raise OptionError(
            "class_weight='balanced' needs the class counts of an export; a raster has none. Pass a weight "
            "for each class, such as class_weight={0: 1, 1: 5}."
        )
    require_single_target("class_weight", class_weight, targets)
    return weighting


def _read_scales(normalize: Any) -> Scales:
    if isinstance(normalize, str):
        raise OptionError(
            f"normalize={normalize!r} needs the statistics of an export; a raster has none. Pass "
            "normalize=xee_tf.band_statistics(ds), which reads it once."
        )
    return read_scales(normalize)


def _numeric_dtype(dtype: Any) -> np.dtype[Any]:
    """Check a dtype of numbers."""
    try:
        found: np.dtype[Any] = np.dtype(dtype)
    except DTYPE_ERRORS:
        found = np.dtype(object)
    if found.kind not in "fiub" or dtype is None:
        raise dtype_error("target_dtype", dtype)
    return found
