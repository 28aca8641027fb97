"""Writing predictions as TFRecord, patch by patch, checked against the mixer of what was predicted from."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt
from fsspec.implementations.local import LocalFileSystem

from xee_tf.errors import DestinationExistsError, OptionError, RecordError
from xee_tf.mixer import Mixer
from xee_tf.records.example import Feature, FeatureTypes, RecordLayout
from xee_tf.records.members import (
    MEMBER_HEADER,
    MemberIndex,
    compress_member,
    index_room,
    indexed_header,
)
from xee_tf.storage import Location, PathLike

__all__ = ["Patches", "PredictionWriter"]

Patches = npt.ArrayLike | Mapping[str, npt.ArrayLike]

_MEMBER_BYTES = 1 << 20  # of records in a gzip member, about
_FLOAT_EXACT = 1 << 24  # float32 carries every whole number up to here


class PredictionWriter:
    """Writes the predictions of exported patches, in their order, into one TFRecord file.

    A context manager: the file appears, whole, when the block is left without an error and all
    patches that the mixer announces were written; otherwise there is none. The bytes do not depend on
    how many patches are written at a time.

    Parameters
    ----------
    path : str or path-like
        The file, such as ``out/prediction.tfrecord.gz``: local, or any URL that fsspec knows.
    mixer : str, path-like or Mixer
        The mixer of the patches that were predicted from.
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
    """

    def __init__(
        self,
        path: PathLike | Location,
        mixer: PathLike | Location | Mixer,
        *,
        bands: Sequence[str] | None = None,
        compressed: bool | None = None,
        feature_types: FeatureTypes = "float",
        if_exists: Literal["error", "overwrite"] = "error",
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        if if_exists not in ("error", "overwrite"):
            raise OptionError(f"if_exists must be 'error' or 'overwrite'; got {if_exists!r}.")
        self.location = Location.of(path, storage_options)
        self.mixer = mixer if isinstance(mixer, Mixer) else Mixer.read(mixer, storage_options)
        self.compressed = self.location.name.endswith(".gz") if compressed is None else compressed
        self.feature_types: FeatureTypes = feature_types
        self.written = 0
        self._bands = None if bands is None else [bands] if isinstance(bands, str) else list(bands)
        self._shape: tuple[int, int] | None = None
        self._layout: RecordLayout | None = None
        self._waiting: list[npt.NDArray[np.uint8]] = []
        self._waiting_records = 0
        self._records: list[int] = []
        self._sizes: list[int] = []
        if if_exists == "error" and self.location.exists():
            raise DestinationExistsError(
                f"{self.location} exists: choose another path, or replace it with if_exists='overwrite'."
            )
        self.location.require_writable()
        if isinstance(self.location.fs, LocalFileSystem):
            temporary = Path(self.location.path)
            temporary.parent.mkdir(parents=True, exist_ok=True)
        else:
            temporary = Path(tempfile.gettempdir()) / self.location.name
        self._temporary = temporary.with_name(f"{temporary.name}.{uuid.uuid4().hex[:8]}.tmp")
        self._file: BinaryIO | None = self._temporary.open("wb")

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
        """Patches that the mixer announces."""
        return self.mixer.total_patches

    def write(self, patches: Patches, *, first: int | None = None) -> None:
        """Append predictions of the next patches.

        Parameters
        ----------
        patches : array-like or mapping of array-likes
            Of shape (patches, height, width), or (patches, height, width, channels), or a mapping from
            band to (patches, height, width). Height and width are those of the patches, with or without
            a margin, which must be the same on both sides.
        first : int, optional
            Number of the first of these patches; it is checked against what was written.

        Raises
        ------
        OptionError
            If names, dtypes or shapes do not fit.
        RecordError
            If they are more than the mixer announces, or not the next ones.
        """
        if self._file is None:
            raise RecordError(f"{self.location} is closed already: {self.written} patches were written.")
        arrays = self._by_band(patches)
        count = len(next(iter(arrays.values())))
        if first is not None and first != self.written:
            raise RecordError(
                f"Predictions must be written in order: patch {self.written} comes next, got {first}."
            )
        if self.written + count > self.total:
            raise RecordError(
                f"The mixer announces {self.total} patches; {self.written} are written and {count} more came."
            )
        layout = self._layout or self._lay_out(arrays)
        values = [_fit(feature, arrays[feature.name]) for feature in layout.features]
        start = 0
        while start < count:
            column = (self.written + start) % self.mixer.patches_per_row
            left = min(self._group - column % self._group, self.mixer.patches_per_row - column)
            part = [array[start : start + left] for array in values]
            encoded = layout.encode(part)
            self._waiting.append(encoded.buffer)
            self._waiting_records += len(encoded)
            if len(encoded) == left:
                self._flush()
            start += left
        self.written += count

    def close(self) -> None:
        """Finish the file and put it into its place.

        Raises
        ------
        RecordError
            If patches are missing; nothing is left behind then.
        """
        if self._file is None:
            return
        try:
            if self.written != self.total:
                raise RecordError(
                    f"{self.location} would be short: {self.written} patches were written, and the mixer "
                    f"announces {self.total}."
                )
            if self.compressed:
                index = MemberIndex(0, tuple(self._records), tuple(self._sizes))
                self._file.seek(0)
                self._file.write(indexed_header(index, length=self._room))
            self._file.close()
            local = Location(str(self._temporary))
            if isinstance(self.location.fs, LocalFileSystem):
                local.move(self.location)
            else:
                self.location.fs.put_file(str(self._temporary), self.location.path)
                local.remove()
            self._file = None
        except BaseException:
            self.abort()
            raise

    def abort(self) -> None:
        """Give up: leave no file."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with suppress(OSError):
                self._temporary.unlink()

    def _by_band(self, patches: Patches) -> dict[str, npt.NDArray[Any]]:
        """Arrays of shape (patches, height, width), in the order of the bands."""
        if isinstance(patches, Mapping):
            arrays = {name: np.asarray(values) for name, values in patches.items()}
            if self._bands is None:
                self._bands = list(arrays)
            if set(arrays) != set(self._bands) or not arrays:
                raise OptionError(f"Bands must be {self._bands}; got {list(arrays)}.")
        else:
            whole = np.asarray(patches)
            if whole.ndim == 3:
                whole = whole[..., np.newaxis]
            if whole.ndim != 4:
                raise OptionError(
                    "Predictions must have the shape (patches, height, width) or (patches, height, width, "
                    f"channels); got {whole.shape}. A single patch is patch[np.newaxis]."
                )
            channels = whole.shape[-1]
            if self._bands is None:
                several = [f"prediction_{i}" for i in range(channels)]
                self._bands = ["prediction"] if channels == 1 else several
            if channels != len(self._bands):
                raise OptionError(
                    f"There are {channels} channels for the {len(self._bands)} bands {self._bands}."
                )
            arrays = {name: whole[..., i] for i, name in enumerate(self._bands)}
        arrays = {name: arrays[name] for name in self._bands}
        shapes = {
            name: array.shape[:3] if array.ndim == 4 and array.shape[3] == 1 else array.shape
            for name, array in arrays.items()
        }
        shape = shapes[self._bands[0]]
        if len(shape) != 3 or any(other != shape for other in shapes.values()):
            raise OptionError(f"Each band must have the same shape (patches, height, width); got {shapes}.")
        self._check_size(shape[1:])
        return {name: array.reshape(shape) for name, array in arrays.items()}

    def _check_size(self, shape: tuple[int, ...]) -> None:
        height, width = shape
        patch = self.mixer.patch
        extra = (height - patch.y, width - patch.x)
        if any(pixels < 0 or pixels % 2 for pixels in extra):
            raise OptionError(
                f"Predictions are {width} pixels wide and {height} high; patches are {patch.x} wide and "
                f"{patch.y} high: expected that, or the same with a margin on both sides."
            )
        if self._shape not in (None, shape):
            raise OptionError(f"Predictions were {self._shape} pixels (height, width) before, now {shape}.")
        self._shape = (height, width)

    def _lay_out(self, arrays: Mapping[str, npt.NDArray[Any]]) -> RecordLayout:
        """Settle kinds and sizes by the first predictions, and the room for the index."""
        layout = RecordLayout(
            tuple(
                Feature.of(name, array.dtype, int(np.prod(array.shape[1:])), self.feature_types)
                for name, array in arrays.items()
            )
        )
        columns = self.mixer.patches_per_row
        # Members end where rows of patches end, as in an export.
        self._group = min(columns, max(1, _MEMBER_BYTES // layout.framed_size))
        self._room = index_room(self.mixer.rows * -(-columns // self._group))
        self._layout = layout
        return layout

    def _flush(self) -> None:
        """Write what waits as one gzip member, or as it is."""
        assert self._file is not None
        data = self._waiting[0] if len(self._waiting) == 1 else np.concatenate(self._waiting)
        if self.compressed:
            member = compress_member(data)
            if not self._sizes:  # its header gives way to the index, which is known at the end
                self._file.write(bytes(self._room))
            self._file.write(member if self._sizes else member[len(MEMBER_HEADER) :])
            self._sizes.append(len(member))
            self._records.append(self._waiting_records)
        else:
            self._file.write(data.data)
        self._waiting, self._waiting_records = [], 0


def _fit(feature: Feature, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Refuse values that a feature's list cannot carry."""
    kind = array.dtype.kind
    if feature.kind == "float":
        if kind in "iu" and array.dtype.itemsize > 2 and array.size:
            largest = max(abs(int(array.min())), abs(int(array.max())))
            if largest > _FLOAT_EXACT:
                raise OptionError(
                    f"Band {feature.name!r} holds {largest}, which float32 cannot carry exactly: write it as "
                    "integers with feature_types='band'."
                )
        fits = kind in "biuf"
    elif feature.kind == "bytes":
        fits = array.dtype in (np.dtype(bool), np.dtype(np.uint8))
    else:
        fits = kind in "iu"
    if not fits:
        raise OptionError(
            f"Band {feature.name!r} is written as {feature.kind}; {array.dtype} values do not fit in."
        )
    return array.astype(np.float32) if feature.kind == "float" else array
