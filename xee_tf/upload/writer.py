"""Writing predictions as TFRecord, in order, checked against the mixer of what was predicted from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from xee_tf.errors import DestinationError, OptionError, RecordError
from xee_tf.names import check_key
from xee_tf.options import IfExists
from xee_tf.records import FeatureTypes, encode_records
from xee_tf.shards.folder_store import AppendingStore
from xee_tf.shards.runs import Part, pack_run
from xee_tf.shards.store import OneFile
from xee_tf.sidecars import Mixer
from xee_tf.sidecars.described import describe_export
from xee_tf.sidecars.find import Exported
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload.predictions import PredictionFormat, Predictions, Unit, by_band

__all__ = ["PredictionWriter"]

_MEMBER_BYTES = 1 << 20  # of records in a gzip member, about


class PredictionWriter:
    """Writes the predictions of exported patches, in their order, into one TFRecord file.

    A context manager: the file appears, whole, when the block is left without an error and all
    patches that the mixer announces were written; otherwise there is none. The bytes do not depend on
    how many patches are written at a time.

    Predictions may also come pixel by pixel, as from a model of the time series of a ``sequence_data``
    export. They are put together into patches, so that the file is like any other.

    Parameters
    ----------
    path : str or path-like
        The file, such as ``out/prediction.tfrecord.gz``: local, or any URL that fsspec knows.
    mixer : str, path-like, ExportResult or Mixer
        The mixer of the patches that were predicted from, or what else names an export for
        `xee_tf.open_image`. Its CRS need not be one that can be understood.
    bands : sequence of str, optional
        Names of the output bands. Default: the keys of a mapping; for arrays ``prediction``, or
        ``prediction_0``, ``prediction_1``, ... for several channels.
    compressed : bool, optional
        Gzip the file. Default: if `path` ends with ``.gz``.
    feature_types : {"float", "band"}, optional
        "float": numbers as float lists. "band": uint8 as bytes, other integers as int64 lists.
    if_exists : {"error", "overwrite"}, optional
        What to do where the file exists.
    storage_options : mapping, optional
        Handed to fsspec.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the file exists or cannot be written.
    MixerError
        If the mixer is not valid.
    OptionError
        If an option cannot be used.

    Examples
    --------
    >>> import tempfile
    >>> from affine import Affine
    >>> from xee_tf.geometry import Size
    >>> mixer = Mixer("EPSG:32633", Affine(30, 0, 7e5, 0, -30, 5e6), Size(x=4, y=4), 2, 4)
    >>> path = f"{tempfile.mkdtemp()}/prediction.tfrecord.gz"
    >>> with PredictionWriter(path, mixer) as writer:
    ...     for patch in range(4):
    ...         writer.write(np.full((1, 4, 4), patch))
    >>> writer.written
    4

    Pixels, in the order of a ``sequence_data`` export, and an array band of 12 months:

    >>> with PredictionWriter(path, mixer, if_exists="overwrite") as writer:
    ...     for batch in np.split(np.arange(64), 8):
    ...         writer.write({"class": batch % 5, "ndvi": np.zeros((len(batch), 12))})
    >>> writer.written, writer.total
    (64, 64)
    """

    def __init__(
        self,
        path: PathLike | Location,
        mixer: Exported | Mixer,
        *,
        bands: Sequence[str] | None = None,
        compressed: bool | None = None,
        feature_types: FeatureTypes = "float",
        if_exists: IfExists = "error",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if str(path).endswith("/"):
            raise DestinationError(
                f"{str(path)!r} is a folder: name a file, such as '{path}prediction.tfrecord.gz'."
            )
        self.location = Location.of(path, storage_options)
        _, self.mixer, manifest, _ = describe_export(mixer, False, storage_options)
        kept = None if manifest is None else manifest.patches
        self._expected = self.mixer.total_patches if kept is None else len(kept)
        self.compressed = self.location.name.endswith(".gz") if compressed is None else compressed
        self.feature_types: FeatureTypes = feature_types
        self.written = 0
        self._bands = None if bands is None else _band_names(bands)
        self._format: PredictionFormat | None = None
        self._pixels: list[list[npt.NDArray[Any]]] = []  # that make no whole patch yet, batch by batch
        self._patches = 0
        self._waiting: list[list[npt.NDArray[Any]]] = []  # patches that make no whole gzip member yet
        self._parts: list[Part] = []
        require_free(self.location, if_exists)
        require_writable(self.location)
        self._store: AppendingStore | None = AppendingStore.begin(OneFile(self.location, self.compressed))

    def __enter__(self) -> PredictionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    @property
    def total(self) -> int:
        """Patches that the export holds; their pixels, once pixels were written."""
        return self._expected * (self.mixer.patch.pixels if self._unit == "pixels" else 1)

    @property
    def _unit(self) -> Unit:
        return "patches" if self._format is None else self._format.unit

    def write(self, predictions: Predictions, *, first: int | None = None) -> None:
        """Append predictions of the next patches, or pixels.

        Parameters
        ----------
        predictions : array-like or mapping of array-likes
            Of patches: an array (patches, height, width), or (patches, height, width, channels) whose
            channels become bands. Or a mapping from band to (patches, height, width), or to (patches,
            height, width, depth) for an array band, which is written channel, height, width. Height and
            width are those of the patches, with or without a margin, which must be the same on both sides.

            Of pixels: an array (pixels,), or (pixels, channels). Or a mapping from band to (pixels,), or
            to (pixels, depth) for an array band. In the order of a ``sequence_data`` export: row-major in
            the patch, patches row-major; any number at a time.
        first : int, optional
            Number of the first of these patches or pixels; it is checked against what was written.

        Raises
        ------
        OptionError
            If names, dtypes or shapes do not fit, or patches and pixels are mixed.
        RecordError
            If they are more than the mixer announces, or not the next ones.
        """
        if self._store is None:
            raise RecordError(f"{self.location} is closed already: {self.written} {self._unit} were written.")
        arrays = by_band(predictions, self._bands, self.mixer.patch)
        settled = self._format or PredictionFormat.of(arrays, self.mixer.patch, self.feature_types)
        values = settled.fit(arrays)
        if first is not None and first != self.written:
            one = {"patches": "patch", "pixels": "pixel"}[settled.unit]
            raise RecordError(
                f"Predictions must be written in order: {one} {self.written} comes next, got {first}."
            )
        if self._format is None:
            self._settle(settled, list(arrays))
        count = len(values[0])
        if self.written + count > self.total:
            raise RecordError(f"{self._announced()}; {self.written} are written and {count} more came.")
        self.written += count
        self._append(settled, values if settled.unit == "patches" else self._whole_patches(settled, values))

    def close(self) -> None:
        """Finish the file and put it into its place.

        Raises
        ------
        RecordError
            If patches or pixels are missing; nothing is left behind then.
        """
        if self._store is None:
            return
        try:
            if self.written != self.total:
                raise RecordError(
                    f"{self.location} would be short: {self.written} {self._unit} were written. "
                    f"{self._announced()}."
                )
            self._store.commit([self._store.join(0, 0, [self._parts])])
            self._store = None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: leave no file."""
        if self._store is not None:
            self._store.abort()
            self._store = None

    def _announced(self) -> str:
        patches = f"{self._expected} patches"
        source = "mixer" if self._expected == self.mixer.total_patches else "manifest"
        if self._unit == "patches":
            return f"The {source} announces {patches}"
        width, height = self.mixer.patch.xy
        return f"The {source} announces {self.total} pixels ({patches} of {width} x {height})"

    def _settle(self, settled: PredictionFormat, bands: list[str]) -> None:
        """Take over what the first predictions settle, and make room for the index."""
        assert self._store is not None
        columns = self.mixer.patches_per_row
        # Members end where rows of patches end, as in an export.
        self._group = min(columns, max(1, _MEMBER_BYTES // settled.layout.framed_size()))
        self._store.reserve(self.mixer.rows * -(-columns // self._group))
        self._format, self._bands = settled, bands

    def _whole_patches(
        self, settled: PredictionFormat, values: list[npt.NDArray[Any]]
    ) -> list[npt.NDArray[Any]]:
        """The patches that these pixels complete; the pixels behind them wait."""
        self._pixels.append([array.copy() for array in values])
        pixels = settled.stored.pixels
        whole = self.written // pixels - self._patches
        if not whole:
            return [array[:0].reshape(0, *settled.stored.shape, array.shape[1]) for array in values]
        joined = [np.concatenate(parts) for parts in zip(*self._pixels, strict=True)]
        self._pixels = [[array[whole * pixels :].copy() for array in joined]]
        return [
            array[: whole * pixels].reshape(whole, *settled.stored.shape, array.shape[1]) for array in joined
        ]

    def _append(self, settled: PredictionFormat, values: list[npt.NDArray[Any]]) -> None:
        """Write patches (patches, height, width, depth), gzip member by gzip member; the rest waits."""
        columns = self.mixer.patches_per_row
        planes = [np.moveaxis(array, -1, 1) for array in values]
        start, count = 0, len(planes[0])
        while start < count:
            column = self._patches % columns
            left = min(self._group - column % self._group, columns - column)
            some = [array[start : start + left] for array in planes]
            self._patches += len(some[0])
            if len(some[0]) == left:
                self._put(settled, [*self._waiting, some])
                self._waiting = []
            else:
                self._waiting.append([array.copy() for array in some])
            start += left

    def _put(self, settled: PredictionFormat, batches: list[list[npt.NDArray[Any]]]) -> None:
        """Write batches of patches as one gzip member, or as they are."""
        assert self._store is not None
        whole = batches[0]
        if len(batches) > 1:
            whole = [np.concatenate(parts) for parts in zip(*batches, strict=True)]
        encoded = encode_records(settled.layout, whole)
        run = pack_run(encoded, [0, len(encoded)], compressed=self.compressed, first=len(self._parts))
        self._parts.append(self._store.put(0, str(len(self._parts)), [run]))


def _band_names(bands: Sequence[str]) -> list[str]:
    """The names of the output bands, if records can hold them."""
    names = [check_key(name) for name in ([bands] if isinstance(bands, str) else bands)]
    if len(set(names)) != len(names):
        raise OptionError(f"bands has a name twice: {names}.")
    return names
