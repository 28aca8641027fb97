"""``xee-tf sample``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import Parameter, Token

import xee_tf
from xee_tf.cli.command import command
from xee_tf.cli.groups import ExistingOptions, RasterOptions
from xee_tf.cli.options import (
    Crs,
    FilePath,
    Flag,
    Name,
    Names,
    Number,
    Size,
    parse_names,
    parse_pairs,
    select_bands,
)
from xee_tf.cli.outcome import Outcome, attributes
from xee_tf.cli.vectors import read_vectors
from xee_tf.errors import OptionError

__all__ = ["sample"]


def _pixels(_: Any, tokens: Sequence[Token]) -> int | dict[int, int]:
    """Parse a number of pixels, or numbers by class."""
    texts = [token.value for token in tokens]
    if len(texts) == 1 and re.fullmatch("[0-9]+", texts[0]):
        return int(texts[0])
    pairs = parse_pairs(texts, "NUMBER, or CLASS=NUMBER, such as 1=500,2=500")
    return {int(name) if re.fullmatch("-?[0-9]+", name) else name: n for name, n in pairs.items()}  # type: ignore[misc]


@command(xee_tf.sample_table, cluster=True)
def sample(
    rasters: list[FilePath],
    prefix: FilePath,
    /,
    *,
    where: Annotated[FilePath | None, Parameter(name=("--where", "--collection"), metavar="FILE")] = None,
    where_crs: Crs = None,
    properties: Names = None,
    n: Annotated[
        int | dict[int, int] | None,
        Parameter(
            name=("--n", "--num-pixels", "--num-points"),
            converter=_pixels,
            n_tokens=1,
            accepts_keys=False,
            allow_repeating=True,
            metavar="NUMBER|CLASS=NUMBER[,CLASS=NUMBER...]",
        ),
    ] = None,
    class_band: Annotated[str | None, Name] = None,
    seed: Annotated[int, Number] = 0,
    drop_nulls: bool = True,
    all_touched: Flag = False,
    columns: Annotated[Names, Parameter(name=("--columns", "--selectors"))] = None,
    geometry: bool = True,
    patch_dimensions: Size = None,
    default_value: Annotated[float, Parameter(metavar="VALUE")] = 0,
    source: RasterOptions,
    bands: Names = None,
    existing: ExistingOptions,
    progress: bool = True,
) -> Outcome:
    """Write a table of the pixels of rasters: at points, in polygons, or chosen at random.

    Each row is a pixel, with its value in each band and the properties of its point or polygon; or, with
    `patch_dimensions`, the patch around the pixel.

    Example: xee-tf sample scene.tif out/points --where points.gpkg

    Parameters
    ----------
    rasters
        Files that GDAL can open, Zarr stores or NetCDF files, as for "xee-tf export".
    prefix
        Prefix of the table: PREFIX.tfrecord.gz and PREFIX-table.tfexport.
    where
        File of points or polygons: GeoPackage, GeoJSON, Shapefile, GeoParquet, or CSV with columns longitude
        and latitude, or x and y. Default: all pixels, for use with `n`.
    where_crs
        CRS of a file that has none. Default: EPSG:4326 for longitude and latitude, else that of the rasters.
    properties
        Columns of the file to copy. Default: all except the geometry.
    n
        Number of pixels to select at random from each class, or a number for each class: 1=500,2=500.
    columns
        Columns to write, in this order. Default: the bands, the properties, longitude and latitude.
    patch_dimensions
        Write the patch of this size around each pixel instead of its value. The pixel alone decides about
        `class_band` and `drop_nulls`.
    geometry
        Also write the longitude and latitude of the center of each pixel.
    bands
        Bands to sample, in this order. Default: all.
    overwrite
        Replace an existing table.
    resume
        Keep a table that an earlier run with this option wrote from the same rasters and points.
    """
    if where is None and n is None:
        raise OptionError(
            "--where and --n are missing: pass --where points.gpkg, --n 1000 for pixels at random, or both."
        )
    image = select_bands(source.open(rasters), bands)
    places = None
    if where is not None:
        places = read_vectors(where, "where", where_crs)
        if places.crs is None:
            places = places.set_crs(image.rio.crs)
    written: Any = xee_tf.sample_table(
        image,
        places,
        prefix,
        properties=parse_names(properties),
        n=n,
        class_band=class_band,
        seed=seed,
        drop_nulls=drop_nulls,
        all_touched=all_touched,
        columns=parse_names(columns),
        geometry="lonlat" if geometry else None,
        patch_dimensions=patch_dimensions,
        default_value=default_value,
        crs=source.crs,
        if_exists=existing.if_exists,
        progress=progress,
    )
    names = ("path", "manifest", "records", "bytes", "dropped", "rounded", "resumed")
    columns_written = [attributes(column, "name", "kind", "shape") for column in written.columns]
    return Outcome(str(written), {**attributes(written, *names), "columns": columns_written})
