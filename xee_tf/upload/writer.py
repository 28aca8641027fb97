"""Writing predictions as TFRecord, in order, checked against the mixer of what was predicted from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.errors import DestinationError, OptionError, RecordError
from xee_tf.names import check_key
from xee_tf.options import READ_SPELLING, IfExists, check_flags, one_of, spelled
from xee_tf.reading import Unit
from xee_tf.records import FeatureTypes, encode_records
from xee_tf.shards import PREDICTION_MEMBER, AppendingStore, OneFile, Part, pack_run, patches_per_member
from xee_tf.sidecars import Exported, Mixer, describe_export
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.upload.predictions import UNITS, PredictionFormat, Predictions, by_band

__all__ = ["PredictionWriter"]

_SPELLING = replace(
    READ_SPELLING,
    what="options of a prediction file",
    replaced={name: instead for name, instead in READ_SPELLING.replaced.items() if name != "compressed"},
    renamed={"path": "destination"},
)


class PredictionWriter:
    """Writes the predictions of exported patches, in their order, into one TFRecord file.

    A context manager: the file appears, whole, when the block is left without an error and all
    patches that the mixer announces were written; otherwise there is none. The bytes do not depend on
    how many patches are written at a time.

    Predictions may also come pixel by pixel, as from a model of the time series of a ``sequence_data``
    export. They are put together into patches, so that the file is like any other.

    Parameters
    ----------
    destination : str or path-like
        The file, such as ``out/prediction.tfrecord.gz``: local, or any URL that fsspec knows.
    mixer : str, path-like, ExportResult or Mixer
        The mixer of the patches that were predicted from, or what else names an export for
        `xee_tf.open_image`. Its CRS need not be one that can be understood.
    bands : sequence of str, optional
        Names of the output bands. Default: the keys of a mapping; for arrays ``prediction``, or
        ``prediction_0``, ``prediction_1``, ... for several channels.
    compressed : bool, optional
        Gzip the file. Default: if `destination` ends with ``.gz``.
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

    @spelled(_SPELLING)
    def __init__(
        self,
        destination: PathLike | Location,
        mixer: Exported | Mixer,
        *,
        bands: Sequence[str] | None = None,
        compressed: bool | None = None,
        feature_types: FeatureTypes = "float",
        if_exists: IfExists = "error",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if compressed is not None:
            check_flags(compressed=compressed)
        one_of("feature_types", feature_types, get_args(FeatureTypes))
        if str(destination).endswith("/"):
            raise DestinationError(
                f"{str(destination)!r} is a folder: name a file, such as "
                f"'{destination}prediction.tfrecord.gz'."
            )
        self.location = Location.of(destination, storage_options)
        _, self.mixer, manifest, _ = describe_export(mixer, False, storage_options)
        kept = None if manifest is None else manifest.patches
        self._expected = self.mixer.total_patches if kept is None else len(kept)
        self.compressed = self.location.name.endswith(".gz") if compressed is None else compressed
        self.feature_types: FeatureTypes = feature_types
        self.written = 0
        self._bands = None if bands is None else _band_names(bands)
        self._format: PredictionFormat | None = None
        self._patches = 0  # in the file
        self._waiting: list[list[npt.NDArray[Any]]] = []  # batches that make no whole gzip member yet
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
        return self._expected * (self.mixer.patch.pixels if self._unit == "pixel" else 1)

    @property
    def _unit(self) -> Unit:
        return "patch" if self._format is None else self._format.unit

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
            raise RecordError(
                f"{self.location} is closed already: {self.written} {UNITS[self._unit]} were written."
            )
        arrays = by_band(predictions, self._bands, self.mixer.patch)
        settled = self._format or PredictionFormat.of(arrays, self.mixer.patch, self.feature_types)
        values = settled.fit(arrays)
        if first is not None and first != self.written:
            raise RecordError(
                f"Predictions must be written in order: {settled.unit} {self.written} comes next, "
                f"got {first}."
            )
        if self._format is None:
            self._settle(settled, list(arrays))
        count = len(values[0])
        if self.written + count > self.total:
            raise RecordError(f"{self._announced()}; {self.written} are written and {count} more came.")
        self.written += count
        self._append(settled, values)

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
                    f"{self.location} would be short: {self.written} {UNITS[self._unit]} were written. "
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
        if self._unit == "patch":
            return f"The {source} announces {patches}"
        width, height = self.mixer.patch.xy
        return f"The {source} announces {self.total} pixels ({patches} of {width} x {height})"

    def _settle(self, settled: PredictionFormat, bands: list[str]) -> None:
        """Take over what the first predictions settle, and make room for the index."""
        assert self._store is not None
        columns = self.mixer.patches_per_row
        size = settled.layout.framed_size()
        self._patches_per_member = patches_per_member(size, columns, PREDICTION_MEMBER)
        self._store.reserve(self.mixer.rows * -(-columns // self._patches_per_member))
        self._format, self._bands = settled, bands

    def _append(self, settled: PredictionFormat, values: list[npt.NDArray[Any]]) -> None:
        """Write patches or pixels in gzip members of whole patches; what makes no whole member waits."""
        pixels = settled.stored.pixels if settled.unit == "pixel" else 1
        self._waiting.append(values)
        patches = self._next_member()
        if self.written < (self._patches + patches) * pixels:
            self._waiting[-1] = [array.copy() for array in values]  # the user may change them
            return
        if len(self._waiting) > 1:
            values = [np.concatenate(parts) for parts in zip(*self._waiting, strict=True)]
        start = 0
        while patches and self.written >= (self._patches + patches) * pixels:
            stop = start + patches * pixels
            self._put(settled, [array[start:stop] for array in values])
            start, self._patches = stop, self._patches + patches
            patches = self._next_member()
        self._waiting = [[array[start:].copy() for array in values]]

    def _next_member(self) -> int:
        """Patches in the next gzip member: members end where rows of patches end, as in an export."""
        columns = self.mixer.patches_per_row
        left = columns - self._patches % columns
        return min(self._patches_per_member, left, self._expected - self._patches)

    def _put(self, settled: PredictionFormat, values: list[npt.NDArray[Any]]) -> None:
        """Write whole patches as one gzip member, or as they are."""
        assert self._store is not None
        shape = settled.stored.shape
        planes = [np.moveaxis(array.reshape(-1, *shape, array.shape[-1]), -1, 1) for array in values]
        encoded = encode_records(settled.layout, planes)
        run = pack_run(encoded, [0, len(encoded)], compressed=self.compressed, first=len(self._parts))
        self._parts.append(self._store.put(0, str(len(self._parts)), [run]))


def _band_names(bands: Sequence[str]) -> list[str]:
    """The names of the output bands, if records can hold them."""
    names = [check_key(name) for name in ([bands] if isinstance(bands, str) else bands)]
    if len(set(names)) != len(names):
        raise OptionError(f"bands has a name twice: {names}.")
    return names
