"""The xarray engine: ``xr.open_dataset("scene-mixer.json", engine="tfrecord", chunks={})``."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from xee_tf.errors import OptionError
from xee_tf.reading.image import Margins, check_margins, lazy_dataset
from xee_tf.reading.reader import Records, open_reader
from xee_tf.sidecars.find import ExportedImage
from xee_tf.sidecars.names import IMAGE_MANIFEST, MIXER
from xee_tf.storage import Location

__all__ = ["TFRecordBackend"]

_DECODERS = (
    "mask_and_scale",
    "decode_times",
    "concat_characters",
    "decode_coords",
    "use_cftime",
    "decode_timedelta",
)


class TFRecordBackend(BackendEntrypoint):
    """Opens mixers of exported patches in xarray.

    Options are those of `xee_tf.open_image`. Bands are read one by one: neighbouring reads share what was
    inflated, but for all bands of a large raster `xee_tf.open_image` does with fewer tasks.

    Examples
    --------
    >>> TFRecordBackend().guess_can_open("out/scene-mixer.json")
    True
    >>> TFRecordBackend().guess_can_open("out/scene-00000.tfrecord.gz")
    False
    """

    description: ClassVar[str] = (
        "Open patches that Earth Engine or xee_tf exported as TFRecord, by their mixer"
    )
    supports_groups: ClassVar[bool] = False
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj",
        "drop_variables",
        *_DECODERS,
        "records",
        "crs",
        "default_value",
        "kernel_size",
        "tensor_depths",
        "margins",
        "bands",
        "verify",
        "storage_options",
    )

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        drop_variables: str | Iterable[str] | None = None,
        mask_and_scale: Any = None,
        decode_times: Any = None,
        concat_characters: Any = None,
        decode_coords: Any = None,
        use_cftime: Any = None,
        decode_timedelta: Any = None,
        records: Records | None = None,
        crs: Any = None,
        default_value: float | None = None,
        kernel_size: int | Sequence[int] | None = None,
        tensor_depths: Mapping[str, int] | None = None,
        margins: Margins = "trim",
        bands: Sequence[str] | None = None,
        verify: bool = True,
        storage_options: Mapping[str, Any] | None = None,
        **unknown: Any,
    ) -> xr.Dataset:
        """Open a mixer; see `xee_tf.open_image`.

        The decoders of xarray (`mask_and_scale` and so on) are accepted. Records hold decoded values, so
        that they have no effect, but for ``mask_and_scale=False``: `default_value` is then not masked.

        Raises
        ------
        OptionError
            If it is not given by a path, or an option cannot be used.
        MissingShardError, MixerError, RecordError
            As `xee_tf.open_image` does.
        """
        if not isinstance(filename_or_obj, (str, os.PathLike, Location, ExportedImage)):
            raise OptionError(
                f"A mixer is opened by its path or URL; got a {type(filename_or_obj).__name__}."
            )
        if unknown:
            names = [name for name in self.open_dataset_parameters or () if name not in _DECODERS]
            raise OptionError(
                f"The engine 'tfrecord' has no option {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(names[1:])}."
            )
        check_margins(margins)
        reader = open_reader(
            filename_or_obj,
            records,
            crs=crs,
            default_value=None if mask_and_scale is False else default_value,
            kernel_size=kernel_size,
            tensor_depths=tensor_depths,
            bands=bands,
            verify=verify,
            storage_options=storage_options,
        )
        dataset = lazy_dataset(reader, margins, None)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name is that of a mixer or manifest."""
        if not isinstance(filename_or_obj, (str, os.PathLike, Location)):
            return isinstance(filename_or_obj, ExportedImage)
        return Location(str(filename_or_obj)).name.endswith((MIXER, IMAGE_MANIFEST))
