"""The xarray engine: ``xr.open_dataset("scene-mixer.json", engine="tfrecord", chunks={})``."""

from __future__ import annotations

import os
from collections.abc import Iterable
from inspect import signature
from typing import Any, ClassVar

import xarray as xr
from xarray.backends import BackendEntrypoint

from xee_tf.errors import OptionError
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
    """Opens mixers of exported patches in xarray.

    Options are those of `xee_tf.open_image`. Bands are read one by one: neighbouring reads share what was
    inflated, but for all bands of a large raster `xee_tf.open_image` needs fewer tasks.

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
        *_OPTIONS,
    )

    def open_dataset(
        self, filename_or_obj: Any, *, drop_variables: str | Iterable[str] | None = None, **options: Any
    ) -> xr.Dataset:
        """Open a mixer; see `xee_tf.open_image`.

        The decoders of xarray (`mask_and_scale` and so on) are accepted. Records hold decoded values, so
        that they have no effect, except ``mask_and_scale=False``: `default_value` is then not masked.

        Raises
        ------
        OptionError
            If it is not given by a path, or an option cannot be used.
        MissingShardError, MixerError, RecordError
            As `xee_tf.open_image` does.
        """
        if not _is_named(filename_or_obj) and not isinstance(filename_or_obj, ExportedImage):
            raise OptionError(
                f"A mixer is opened by its path or URL; got a {type(filename_or_obj).__name__}."
            )
        decoders = {name: options.pop(name) for name in _DECODERS if name in options}
        if unknown := [name for name in options if name not in _OPTIONS]:
            raise OptionError(
                f"The engine 'tfrecord' has no option {', '.join(map(repr, unknown))}; it has "
                f"{', '.join(('drop_variables', *_OPTIONS))}."
            )
        if decoders.get("mask_and_scale") is False:
            options["default_value"] = None
        dataset = open_image(filename_or_obj, chunks=None, **options)
        dropped = [drop_variables] if isinstance(drop_variables, str) else list(drop_variables or ())
        return dataset.drop_vars(dropped, errors="ignore")

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether the name is that of a mixer or manifest."""
        if not _is_named(filename_or_obj):
            return isinstance(filename_or_obj, ExportedImage)
        return Location(str(filename_or_obj)).name.endswith((MIXER, IMAGE_MANIFEST))


def _is_named(source: Any) -> bool:
    """Whether an export is named by its path or URL."""
    return isinstance(source, (str, os.PathLike, Location))
