"""Convert a table of records to a vector file, as ``earthengine upload table`` does for assets."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from xee_tf.display import counted, quoted
from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.georef import crs_option, describe_crs
from xee_tf.names import check_columns
from xee_tf.options import READ_SPELLING, IfExists, read_names, spelled
from xee_tf.signals import interruptible
from xee_tf.storage import Location, PathLike, require_free, require_writable, storage_errors
from xee_tf.tables import TableResult, open_table
from xee_tf.upload.files import geopackage_files, no_side_files, staged_file

__all__ = ["upload_table"]

_SPELLING = replace(READ_SPELLING, what="upload options")

_FORMATS: dict[str, Literal["GeoPackage", "GeoParquet"]] = {
    ".parquet": "GeoParquet",
    ".geoparquet": "GeoParquet",
    ".gpkg": "GeoPackage",
}


@spelled(_SPELLING)
@interruptible()
def upload_table(
    path: PathLike | TableResult | Sequence[PathLike | TableResult],
    destination: PathLike,
    *,
    crs: Any = "EPSG:4326",
    x_column: str | None = None,
    y_column: str | None = None,
    columns: Sequence[str] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    encoding: str = "utf-8",
    if_exists: IfExists = "error",
    storage_options: Mapping[str, Any] | None = None,
) -> Location:
    """Convert the records of a table to points, one for each Example, and write them to a vector file.

    Parameters
    ----------
    path : str, path-like, TableResult or sequence of them
        TFRecord files of Examples, as for `xee_tf.open_table`: an export, or predictions.
    destination : str or path-like
        A local path or an fsspec URL: ``.parquet`` for GeoParquet, ``.gpkg`` for GeoPackage.
    crs : object, default "EPSG:4326"
        CRS of the coordinates: anything that pyproj accepts.
    x_column : str, optional
        Column of the x coordinates, which is also a column of the file. By default ``longitude``, as in Earth
        Engine; required if `crs` is projected.
    y_column : str, optional
        Column of the y coordinates, which is also a column of the file. By default ``latitude``, as in Earth
        Engine; required if `crs` is projected.
    columns : sequence of str, optional
        Columns to write, in addition to the coordinates. By default all columns.
    shapes : mapping of str to sequence of int, optional
        Shapes of array-valued columns, as for `xee_tf.open_table`.
    encoding : str, default "utf-8"
        Encoding of the strings.
    if_exists : {"error", "overwrite", "resume"}, default "error"
        What to do if the file exists. "overwrite" replaces it when the new file is complete. "resume" writes
        it if it is missing; an existing file does not tell what it was written from, so that it is an error.
    storage_options : mapping of str to object, optional
        Options for fsspec, for both `path` and `destination`.

    Returns
    -------
    Location
        The file, which is path-like: `os.fspath` returns its local path or URL.

    Raises
    ------
    OptionError
        If the format is unknown, the columns of the coordinates are not found, or a column cannot be written
        in the format.
    RecordError
        If a record has no coordinates; otherwise as for `xee_tf.open_table`.
    DestinationExistsError
        If the file exists and `if_exists` is "error".
    DestinationError
        If the file cannot be written.

    Examples
    --------
    >>> import geopandas, pandas as pd, tempfile, xee_tf
    >>> folder = tempfile.mkdtemp()
    >>> sites = pd.DataFrame({"longitude": [13.5, 13.75], "latitude": [45.0, 45.25], "class": [1, 2]})
    >>> table = xee_tf.export_table(sites, f"{folder}/sites")
    >>> file = xee_tf.upload_table(table.path, f"{folder}/sites.parquet")
    >>> geopandas.read_parquet(file.url).geometry.to_wkt().tolist()
    ['POINT (13.5 45)', 'POINT (13.75 45.25)']
    """
    with extra("tables", "upload_table"):
        import geopandas as gpd

    target = Location.of(destination, storage_options)
    suffix = os.path.splitext(target.name)[1].lower()
    if suffix not in _FORMATS:
        raise OptionError(
            f"Unknown output format of {target}: use the extension .parquet (GeoParquet) or .gpkg "
            "(GeoPackage)."
        )
    require_free(target, if_exists)
    require_writable(target)
    point_crs = crs_option(crs)
    names = [x_column, y_column]
    if point_crs.is_geographic:
        names = [x_column or "longitude", y_column or "latitude"]
    if None in names:
        raise OptionError(
            f"{describe_crs(point_crs)} is a projected CRS: pass the names of the coordinate columns as "
            "x_column= and y_column=."
        )
    x_name, y_name = map(str, names)
    if columns is not None:
        columns = list(dict.fromkeys([*read_names(columns, "columns", allow_empty=True), x_name, y_name]))
    frame = open_table(path, columns, shapes=shapes, encoding=encoding, storage_options=storage_options)
    missing = [name for name in (x_name, y_name) if name not in frame]
    if missing:
        raise OptionError(
            f"Coordinate column {missing[0]!r} not found; available: {quoted(frame.columns)}. Pass the names "
            "of the coordinate columns as x_column= and y_column=."
        )
    check_columns(
        list(frame.columns),
        _FORMATS[suffix],
        "Omit it with columns=[...]" + (", or write .parquet." if suffix == ".gpkg" else "."),
    )
    for name in (x_name, y_name):
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise OptionError(
                f"Column {name!r} cannot be a coordinate: expected one number per row, got dtype "
                f"{frame[name].dtype}. Pass other columns as x_column= and y_column=."
            )
    x, y = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (x_name, y_name))
    absent = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if absent.size:
        row = int(absent[0])
        raise RecordError(
            f"Record {row} has no coordinates: {x_name} is {x[row]} and {y_name} is {y[row]} "
            f"({counted(absent.size, 'such record')}). Drop such rows before the export."
        )
    lists = [name for name in frame.columns if _holds_arrays(frame[name])]
    if lists and suffix == ".gpkg":
        raise OptionError(
            f"GeoPackage does not support arrays, but {quoted(lists)} are array-valued: select other columns "
            "with columns=[...], or write .parquet."
        )
    frame = frame.assign(**{name: [_plain(value) for value in frame[name]] for name in lists})
    points = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(x, y), crs=point_crs)
    side_files = geopackage_files if suffix == ".gpkg" else no_side_files
    errors = storage_errors("write", target.url, left="Nothing was changed.")
    with staged_file(target, if_exists, side_files) as file, errors:
        if suffix == ".gpkg":
            points.to_file(file, driver="GPKG", layer=os.path.splitext(target.name)[0])
        else:
            points.to_parquet(file, index=False)
    return target


def _holds_arrays(column: Any) -> bool:
    return column.dtype == object and any(isinstance(value, np.ndarray | list) for value in column)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
