"""Options that several commands have, each declared and described once.

A command takes the options of a class as one parameter; see `xee_tf.cli.command.command`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Any

import xarray as xr
from cyclopts import Parameter

from xee_tf.cli.options import Box, Crs, Flag, Names, Size, if_exists, parse_names
from xee_tf.cli.rasters import open_rasters
from xee_tf.options import IfExists
from xee_tf.records import FeatureTypes

__all__ = ["ExistingOptions", "PatchOptions", "RasterOptions"]


@dataclass(frozen=True)
class RasterOptions:
    """How the rasters of a command line are opened.

    Parameters
    ----------
    band_names
        Other names for all bands, in the order of the files and of their bands.
    crs
        CRS of rasters that have none.
    chunk
        Width and height, in pixels, of the chunks that are read from disk.
    """

    band_names: Names = None
    crs: Crs = None
    chunk: Annotated[int, Parameter(metavar="PIXELS")] = 1024

    def open(self, paths: Sequence[str]) -> xr.Dataset:
        """Open rasters as one image."""
        return open_rasters(paths, self.chunk, self.crs, parse_names(self.band_names))


@dataclass(frozen=True)
class PatchOptions:
    """Which patches of an image are exported, and in which form.

    Parameters
    ----------
    bands
        Bands to export, in this order. Default: all.
    region
        Part of the raster to export, in the CRS of the raster or in `region_crs`. Margins contain the real
        pixels around it.
    region_crs
        CRS of `region`, such as EPSG:4326.
    default_value
        Value for pixels of a band that are masked (NaN, _FillValue or nodata) or outside the raster. For
        integer bands, the value is truncated to an integer and clamped to the range of the dtype; a warning
        lists the bands that cannot hold it.
    statistics
        Take the statistics of every band and store them in the manifest, which takes some CPU time.
    """

    bands: Names = None
    patch_dimensions: Size = (256, 256)
    kernel_size: Size = (1, 1)
    region: Box = None
    region_crs: Crs = None
    compressed: Annotated[bool, Parameter(name="--compress")] = True
    max_file_size: Annotated[int, Parameter(metavar="BYTES")] = 2**30
    default_value: Annotated[float, Parameter(metavar="VALUE")] = 0
    masked_threshold: Annotated[float, Parameter(metavar="PROPORTION")] = 1.0
    index: Flag = False
    statistics: Annotated[bool, Parameter(name="--statistics")] = True
    feature_types: FeatureTypes = "float"

    def keywords(self) -> dict[str, Any]:
        """Return the options as `xee_tf.export_image` takes them; the bands are selected before."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "bands"}


@dataclass(frozen=True)
class ExistingOptions:
    """What becomes of existing files.

    Parameters
    ----------
    overwrite
        Replace an existing export.
    resume
        Continue an interrupted export that was also run with this option: its complete shards are kept.
    """

    overwrite: Flag = False
    resume: Flag = False

    @property
    def if_exists(self) -> IfExists:
        """The value of the option of Python functions."""
        return if_exists(self.overwrite, self.resume)
