"""The xarray engine: ``xr.open_dataset("scene-mixer.json", engine="tfrecord", chunks={})``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from inspect import signature
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from xee_tf.display import quoted
from xee_tf.errors import OptionError
from xee_tf.options import did_you_mean
from xee_tf.reading.image import open_image
from xee_tf.sidecars import IMAGE_MANIFEST, MIXER, ExportedImage
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
_OPTIONS = tuple(name for name in signature(open_image).parameters if name not in ("mixer", "chunks"))


class TFRecordBackend(BackendEntrypoint):
    """xarray backend that opens exported patches from their mixer.

    It has the options of `xee_tf.open_image`. Bands are read one by one; consecutive reads share decompressed
    data, but to read all bands of a large raster, `xee_tf.open_image` needs fewer tasks.

    Examples
    --------
    >>> TFRecordBackend().guess_can_open("out/scene-mixer.json")
    True
    >>> TFRecordBackend().guess_can_open("out/scene-00000.tfrecord.gz")
    False
    """

    description: ClassVar[str] = "Open the mixer of patches that Earth Engine or xee_tf exported as TFRecord"
    supports_groups: ClassVar[bool] = False
    open_dataset_parameters: ClassVar[tuple[str, ...] | None] = (
        "filename_or_obj",
        "drop_variables",
        *_DECODERS,
        *_OPTIONS,
    )

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, **options: Any
    ) -> xr.Dataset:
        """Open a mixer.

        Parameters
        ----------
        filename_or_obj : str, path-like or ExportResult
            The mixer; see `xee_tf.open_image`.
        drop_variables : str or iterable of str, optional
            Names of variables to omit.
        **options
            Options of `xee_tf.open_image`, and xarray's decoders. Records contain decoded values, so that
            decoders have no effect, except that `default_value` is not masked with ``mask_and_scale=False``.

        Returns
        -------
        Dataset
            The raster, with lazy arrays.

        Raises
        ------
        MissingShardError, MixerError, RecordError
            See `xee_tf.open_image`.
        OptionError
            If the source is not a path, or an option is not valid.
        """
        if not _is_path(filename_or_obj) and not isinstance(filename_or_obj, ExportedImage | list | tuple):
            raise OptionError(
                "The first argument must be the path or URL of a mixer; got a "
                f"{type(filename_or_obj).__name__}."
            )
        decoders = {name: options.pop(name) for name in _DECODERS if name in options}
        if unknown := [name for name in options if name not in _OPTIONS]:
            known = ("drop_variables", *_OPTIONS)
            raise OptionError(
                f"Unknown options for engine 'tfrecord': {quoted(unknown)}; available: {', '.join(known)}."
                + "".join(did_you_mean(name, known) for name in unknown)
            )
        if decoders.get("mask_and_scale") is False:
            options["default_value"] = None
        dataset = open_image(filename_or_obj, chunks=None, **options)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Return whether the name is that of a mixer or an image manifest."""
        if not _is_path(filename_or_obj):
            return isinstance(filename_or_obj, ExportedImage)
        return Location(str(filename_or_obj)).name.endswith((MIXER, IMAGE_MANIFEST))


def _is_path(source: Any) -> bool:
    return isinstance(source, (str, os.PathLike, Location))
