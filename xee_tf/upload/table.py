"""From a table of records to a file that a GIS opens: what ``earthengine upload table`` does."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from xee_tf.errors import OptionError, RecordError
from xee_tf.extras import extra
from xee_tf.georef import describe_crs, read_crs
from xee_tf.names import check_columns
from xee_tf.options import READ_SPELLING, IfExists, spelled
from xee_tf.storage import Location, PathLike, require_free, require_writable
from xee_tf.tables import TableResult, open_table

__all__ = ["upload_table"]

_FORMATS: dict[str, Literal["GeoPackage", "GeoParquet"]] = {
    ".parquet": "GeoParquet",
    ".geoparquet": "GeoParquet",
    ".gpkg": "GeoPackage",
}


@spelled(READ_SPELLING)
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
    """Make points of the records of a table, a row for each Example, and write them to a file.

    Parameters
    ----------
    path : str, path-like, TableResult or sequence of them
        A TFRecord of Examples, as `xee_tf.open_table` takes it: an export, or predictions.
    destination : str or path-like
        ``.parquet`` for GeoParquet, ``.gpkg`` for GeoPackage; a local path or any URL that fsspec knows.
    crs : optional
        What the coordinates are in; anything that pyproj understands. Default: EPSG:4326.
    x_column, y_column : str, optional
        The columns of the coordinates. Default, as in Earth Engine: ``longitude`` and ``latitude``, unless
        `crs` is projected; then they must be named. They stay columns of the file.
    columns, shapes, encoding
        As for `xee_tf.open_table`; the coordinates are read in any case.
    if_exists : {"error", "overwrite"}
        What to do where the file exists.
    storage_options : mapping
        Handed to fsspec, for `path` and `destination`.

    Returns
    -------
    Location
        The file written.

    Raises
    ------
    OptionError
        If the format is unknown, the coordinates are not there, or a column is not for that format.
    RecordError
        If a row has no coordinates, and as `xee_tf.open_table` does.
    DestinationExistsError
        If the file exists and `if_exists` is "error".

    Examples
    --------
    >>> import geopandas, pandas as pd, tempfile
    >>> from xee_tf.tables import export_table
    >>> folder = tempfile.mkdtemp()
    >>> sites = pd.DataFrame({"longitude": [13.5, 13.75], "latitude": [45.0, 45.25], "class": [1, 2]})
    >>> file = upload_table(export_table(sites, f"{folder}/sites").path, f"{folder}/sites.parquet")
    >>> geopandas.read_parquet(file.url).geometry.to_wkt().tolist()
    ['POINT (13.5 45)', 'POINT (13.75 45.25)']
    """
    with extra("tables", "upload_table"):
        import geopandas as gpd

    target = Location.of(destination, storage_options)
    suffix = os.path.splitext(target.name)[1].lower()
    if suffix not in _FORMATS:
        raise OptionError(f"{target} must end with .parquet (GeoParquet) or .gpkg (GeoPackage).")
    require_free(target, if_exists)
    require_writable(target)
    place = read_crs(crs, "crs", "Give one that pyproj understands, for example crs='EPSG:4326'.")
    names = [x_column, y_column]
    if place.is_geographic:
        names = [x_column or "longitude", y_column or "latitude"]
    if None in names:
        raise OptionError(
            f"{describe_crs(place)} is projected, so that its coordinates are no longitude and latitude: "
            "name their columns with x_column= and y_column=."
        )
    x_name, y_name = map(str, names)
    if columns is not None:
        columns = list(dict.fromkeys([*([columns] if isinstance(columns, str) else columns), x_name, y_name]))
    frame = open_table(path, columns, shapes=shapes, encoding=encoding, storage_options=storage_options)
    missing = [name for name in (x_name, y_name) if name not in frame]
    if missing:
        raise OptionError(
            f"The table has no column {missing[0]!r} for the coordinates; it has {list(frame.columns)}. Name "
            "them with x_column= and y_column=."
        )
    check_columns(
        list(frame.columns),
        _FORMATS[suffix],
        "Leave it out with columns=[...]" + (", or write .parquet." if suffix == ".gpkg" else "."),
    )
    for name in (x_name, y_name):
        if not pd.api.types.is_numeric_dtype(frame[name].dtype):
            raise OptionError(f"Column {name!r} holds no single numbers: it cannot be a coordinate.")
    x, y = (frame[name].to_numpy(np.float64, na_value=np.nan) for name in (x_name, y_name))
    absent = np.flatnonzero(~(np.isfinite(x) & np.isfinite(y)))
    if absent.size:
        row = int(absent[0])
        raise RecordError(
            f"Record {row} has no place: {x_name} is {x[row]} and {y_name} {y[row]} "
            f"({absent.size} such records)."
        )
    lists = [name for name in frame.columns if _holds_arrays(frame[name])]
    if lists and suffix == ".gpkg":
        raise OptionError(
            f"A GeoPackage holds no arrays, and {lists} are: leave them out with columns=, or write .parquet."
        )
    frame = frame.assign(**{name: [_plain(value) for value in frame[name]] for name in lists})
    points = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(x, y), crs=place)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"table{suffix}"
        if suffix == ".gpkg":
            points.to_file(file, driver="GPKG", layer=os.path.splitext(target.name)[0])
        else:
            points.to_parquet(file, index=False)
        target.put_file(file)
    return target


def _holds_arrays(column: Any) -> bool:
    return column.dtype == object and any(isinstance(value, np.ndarray | list) for value in column)


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray) else value
