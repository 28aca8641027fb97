"""Write predictions to TFRecord in order, and check them against the mixer of the exported patches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from xee_tf.display import Summarized, Summary, abbreviated, counted
from xee_tf.errors import DestinationError, RecordError
from xee_tf.names import check_key
from xee_tf.options import READ_SPELLING, IfExists, check_flags, one_of, read_names, spelled
from xee_tf.reading import Unit
from xee_tf.records import FeatureTypes, encode_records
from xee_tf.shards import PREDICTION_MEMBER, AppendingStore, OneFile, Part, pack_run, patches_per_member
from xee_tf.sidecars import Exported, Mixer, describe_export
from xee_tf.signals import NOTHING_CHANGED, explain_interruption, interruptible
from xee_tf.storage import Location, PathLike, begin, require_free, require_writable
from xee_tf.upload.predictions import UNITS, PredictionFormat, Predictions, arrays_by_band

__all__ = ["PredictionWriter"]

_SPELLING = replace(
    READ_SPELLING,
    what="options of a prediction file",
    replaced={name: instead for name, instead in READ_SPELLING.replaced.items() if name != "compressed"},
    renamed={"path": "destination"},
)


class PredictionWriter(Summarized):
    """Write the predictions of exported patches, in order, to a TFRecord file.

    Use it as a context manager: the file appears when the block exits without an error and all patches of
    the mixer are written; otherwise no file is written. The content of the file does not depend on the
    number of patches per call of `write`.

    Predictions may also be single pixels, for example from a model of the time series of a
    ``sequence_data`` export. They are combined into patches, so the file has the same format.

    Parameters
    ----------
    destination : str or path-like
        The file, for example ``out/prediction.tfrecord.gz``: a local path or an fsspec URL.
    mixer : str, path-like, ExportResult or Mixer
        The mixer of the exported patches, or another reference to an export that `xee_tf.open_image` accepts.
        The CRS of the mixer may be one that pyproj does not accept.
    bands : sequence of str, optional
        Names of the output bands. By default the keys of a mapping; for arrays ``prediction``, or
        ``prediction_0``, ``prediction_1``, ... for multiple channels.
    compressed : bool, optional
        Whether to gzip the file. By default True if `destination` ends with ``.gz``.
    feature_types : {"float", "band"}, default "float"
        "float": write numbers as float lists. "band": write uint8 as bytes and other integers as int64 lists.
    if_exists : {"error", "overwrite"}, default "error"
        What to do if the file exists.
    storage_options : mapping of str to object, optional
        Options for fsspec.

    Raises
    ------
    DestinationExistsError, DestinationError
        If the file exists or cannot be written.
    MixerError
        If the mixer is invalid.
    OptionError
        If an option is invalid.

    Examples
    --------
    >>> import numpy as np, tempfile, xee_tf
    >>> from affine import Affine
    >>> affine = Affine(30, 0, 7e5, 0, -30, 5e6)
    >>> mixer = xee_tf.Mixer("EPSG:32633", affine, xee_tf.Size(x=4, y=4), 2, 4)
    >>> path = f"{tempfile.mkdtemp()}/prediction.tfrecord.gz"
    >>> with xee_tf.PredictionWriter(path, mixer) as writer:
    ...     for patch in range(4):
    ...         writer.write(np.full((1, 4, 4), patch))
    >>> writer.written
    4

    Write pixels, in the order of a ``sequence_data`` export, with an array band of 12 months:

    >>> with xee_tf.PredictionWriter(path, mixer, if_exists="overwrite") as writer:
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
                f"destination must be a file, such as '{destination}prediction.tfrecord.gz'; got the folder "
                f"{str(destination)!r}."
            )
        self.location = Location.of(destination, storage_options)
        _, self.mixer, manifest, *_ = describe_export(mixer, storage_options)
        listed = None if manifest is None else manifest.patches
        self._expected = self.mixer.total_patches if listed is None else len(listed)
        self.compressed = self.location.name.endswith(".gz") if compressed is None else compressed
        self.feature_types: FeatureTypes = feature_types
        self.written = 0
        chosen = None if bands is None else read_names(bands, "bands", ["forest", "water"])
        self._bands = None if chosen is None else [check_key(name) for name in chosen]
        self._format: PredictionFormat | None = None
        self._patches = 0  # number of patches in the file
        self._pending: list[list[npt.NDArray[Any]]] = []  # batches of an incomplete gzip member
        self._parts: list[Part] = []
        require_free(self.location, "overwrite")  # raises if it is a folder; `begin` looks for files
        require_writable(self.location)
        staging, earlier = begin(self.location, self._existing, if_exists)
        names = OneFile(self.location, self.compressed)
        self._store: AppendingStore | None = AppendingStore(staging, names, earlier)
        self._signals = ExitStack()

    def __enter__(self) -> PredictionWriter:
        self._signals.enter_context(interruptible())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._signals:
            if kind is None:
                self.close()
                return
            self.abort()
            if isinstance(error, KeyboardInterrupt):
                explain_interruption(error, NOTHING_CHANGED)
                raise error  # through `interruptible`, which prints the explanation

    @property
    def total(self) -> int:
        """Number of patches of the export, or of their pixels after pixels are written."""
        return self._expected * (self.mixer.patch.pixels if self._unit == "pixel" else 1)

    @property
    def _unit(self) -> Unit:
        return "patch" if self._format is None else self._format.unit

    def write(self, predictions: Predictions, *, first: int | None = None) -> None:
        """Append the predictions of the next patches or pixels.

        Parameters
        ----------
        predictions : array-like or mapping of str to array-like
            For patches: an array (patches, height, width), or (patches, height, width, channels) whose
            channels become bands. Or a mapping of bands to (patches, height, width), or to (patches, height,
            width, depth) for an array band, which is stored as depth, height, width. Height and width are
            those of the patches, optionally with a margin, which must be the same on both sides.

            For pixels: an array (pixels,), or (pixels, channels). Or a mapping of bands to (pixels,), or to
            (pixels, depth) for an array band. Pixels are in the order of a ``sequence_data`` export:
            row-major within a patch, patches row-major. The number of pixels per call is arbitrary.
        first : int, optional
            Expected number of the first of these patches or pixels, which is checked.

        Raises
        ------
        OptionError
            If names, dtypes or shapes do not match the first predictions or the mixer, or if patches and
            pixels are mixed.
        RecordError
            If there are more predictions than the mixer specifies, `first` is not the next patch or pixel, or
            the writer is closed.

        Examples
        --------
        >>> import numpy as np, tempfile, xee_tf
        >>> from affine import Affine
        >>> affine = Affine(30, 0, 7e5, 0, -30, 5e6)
        >>> mixer = xee_tf.Mixer("EPSG:32633", affine, xee_tf.Size(x=4, y=4), 2, 4)
        >>> with xee_tf.PredictionWriter(tempfile.mkdtemp() + "/prediction.tfrecord", mixer) as writer:
        ...     writer.write({"class": np.zeros((3, 4, 4)), "probability": np.ones((3, 4, 4))})
        ...     writer.write({"class": np.zeros((1, 4, 4)), "probability": np.ones((1, 4, 4))}, first=3)
        """
        if self._store is None:
            raise RecordError(
                f"The writer of {self.location} is closed; written: {self._count(self.written)}."
            )
        arrays = arrays_by_band(predictions, self._bands, self.mixer.patch)
        file_format = self._format or PredictionFormat.of(arrays, self.mixer.patch, self.feature_types)
        values = file_format.fit(arrays)
        if first is not None and first != self.written:
            raise RecordError(
                f"Predictions must be written in order: expected {file_format.unit} {self.written}; got "
                f"{first}."
            )
        if self._format is None:
            self._set_format(file_format, list(arrays))
        count = len(values[0])
        if self.written + count > self.total:
            raise RecordError(f"Too many predictions: {self._specified()}; got {self.written + count}.")
        self.written += count
        self._append(file_format, values)

    def close(self) -> None:
        """Complete the file. The context manager calls it.

        Raises
        ------
        RecordError
            If patches or pixels are missing. No file is written in this case.

        Examples
        --------
        >>> import numpy as np, tempfile, xee_tf
        >>> from affine import Affine
        >>> affine = Affine(30, 0, 7e5, 0, -30, 5e6)
        >>> mixer = xee_tf.Mixer("EPSG:32633", affine, xee_tf.Size(x=4, y=4), 2, 4)
        >>> writer = xee_tf.PredictionWriter(tempfile.mkdtemp() + "/prediction.tfrecord", mixer)
        >>> writer.write(np.zeros((4, 4, 4)))
        >>> writer.close()
        >>> writer.location.name
        'prediction.tfrecord'
        """
        if self._store is None:
            return
        with interruptible():
            try:
                if self.written != self.total:
                    raise RecordError(
                        f"Predictions for {self.location} are missing: {self._specified()}; got "
                        f"{self.written}."
                    )
                self._store.commit([self._store.finish(0, [self._parts])])
                self._store = None
            except BaseException as error:
                self.abort()
                explain_interruption(error, NOTHING_CHANGED)
                raise

    def abort(self) -> None:
        """Discard the predictions without writing a file.

        Examples
        --------
        >>> import os, tempfile, xee_tf
        >>> from affine import Affine
        >>> affine = Affine(30, 0, 7e5, 0, -30, 5e6)
        >>> mixer = xee_tf.Mixer("EPSG:32633", affine, xee_tf.Size(x=4, y=4), 2, 4)
        >>> folder = tempfile.mkdtemp()
        >>> xee_tf.PredictionWriter(f"{folder}/prediction.tfrecord", mixer).abort()
        >>> os.listdir(folder)
        []
        """
        if self._store is not None:
            self._store.abort()
            self._store = None

    def _existing(self) -> list[Location]:
        return [self.location] if self.location.exists() else []

    def _summary(self) -> Summary:
        state = "" if self._store is not None else ", closed"
        rows = [("written", f"{self.written:,} of {self._count(self.total)}{state}")]
        if self._bands is not None:
            rows.append(("bands", abbreviated(self._bands)))
        return Summary("PredictionWriter", str(self.location), rows)

    def _count(self, number: int) -> str:
        return counted(number, self._unit, UNITS[self._unit])

    def _specified(self) -> str:
        """Describe the number of patches or pixels that the mixer or the manifest specifies."""
        source = "mixer" if self._expected == self.mixer.total_patches else "manifest"
        specified = f"the {source} specifies {self._count(self.total)}"
        if self._unit == "patch":
            return specified
        width, height = self.mixer.patch.xy
        return f"{specified} ({counted(self._expected, 'patch', 'patches')} of {width} x {height})"

    def _set_format(self, file_format: PredictionFormat, bands: list[str]) -> None:
        """Store the format of the first predictions, and reserve space for the index."""
        assert self._store is not None
        columns = self.mixer.patches_per_row
        size = file_format.layout.framed_size()
        self._patches_per_member = patches_per_member(size, columns, PREDICTION_MEMBER)
        self._store.reserve(self.mixer.rows * -(-columns // self._patches_per_member))
        self._format, self._bands = file_format, bands

    def _append(self, file_format: PredictionFormat, values: list[npt.NDArray[Any]]) -> None:
        """Write patches or pixels in gzip members of whole patches; keep those of an incomplete member."""
        pixels = file_format.stored.pixels if file_format.unit == "pixel" else 1
        self._pending.append(values)
        patches = self._next_member()
        if self.written < (self._patches + patches) * pixels:
            self._pending[-1] = [array.copy() for array in values]  # the caller may reuse the arrays
            return
        if len(self._pending) > 1:
            values = [np.concatenate(parts) for parts in zip(*self._pending, strict=True)]
        start = 0
        while patches and self.written >= (self._patches + patches) * pixels:
            stop = start + patches * pixels
            self._write_member(file_format, [array[start:stop] for array in values])
            start, self._patches = stop, self._patches + patches
            patches = self._next_member()
        self._pending = [[array[start:].copy() for array in values]]

    def _next_member(self) -> int:
        """Return the number of patches in the next gzip member; as in exports, no member spans two rows."""
        columns = self.mixer.patches_per_row
        rest_of_row = columns - self._patches % columns
        return min(self._patches_per_member, rest_of_row, self._expected - self._patches)

    def _write_member(self, file_format: PredictionFormat, values: list[npt.NDArray[Any]]) -> None:
        """Write whole patches as one gzip member, or uncompressed."""
        assert self._store is not None
        shape = file_format.stored.shape
        planes = [np.moveaxis(array.reshape(-1, *shape, array.shape[-1]), -1, 1) for array in values]
        encoded = encode_records(file_format.layout, planes)
        run = pack_run(encoded, [0, len(encoded)], compressed=self.compressed, first=len(self._parts))
        self._parts.append(self._store.put(0, str(len(self._parts)), [run]))
