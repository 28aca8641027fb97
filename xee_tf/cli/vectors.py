"""Open the points and polygons of a command line."""

from __future__ import annotations

import os
from typing import Any

from xee_tf.errors import OptionError, StorageError
from xee_tf.extras import extra

__all__ = ["read_vectors"]

_COLUMNS = (("longitude", "latitude"), ("lon", "lat"), ("x", "y"))
"""Columns of a CSV file with the coordinates of points."""


def read_vectors(path: str, name: str, crs: str | None = None) -> Any:
    """Open a file of points or polygons as a GeoDataFrame.

    Parameters
    ----------
    path : str
        A GeoParquet file, or one that GDAL opens, such as a GeoPackage, GeoJSON or Shapefile; or a CSV file
        with columns longitude and latitude, or x and y.
    name : str
        The option that has the path.
    crs : str, optional
        CRS of a file that has none. Default: EPSG:4326 for longitudes and latitudes in a CSV file.
    """
    with extra("tables", f"{name}={path!r}"):
        import geopandas as gpd
        import pandas as pd

    if "://" not in path and not os.path.exists(path):
        raise StorageError(f"{path}: No such file or folder.")
    try:
        if path.lower().endswith((".parquet", ".geoparquet")):
            frame = gpd.read_parquet(path)
        elif path.lower().endswith(".csv"):
            table = pd.read_csv(path)
        else:
            frame = gpd.read_file(path)
    except Exception as error:  # GDAL, pyarrow and pandas raise many types
        raise StorageError(
            f"{path} cannot be opened as points or polygons: {error}. Expected GeoPackage, GeoJSON, "
            "Shapefile, GeoParquet or CSV."
        ) from error
    if path.lower().endswith(".csv"):
        columns = {str(column).lower(): column for column in table.columns}
        found = next((pair for pair in _COLUMNS if set(pair) <= set(columns)), None)
        if found is None:
            raise OptionError(
                f"{path} has the columns {', '.join(map(str, table.columns))}; expected longitude and "
                "latitude, or x and y."
            )
        x, y = (columns[column] for column in found)
        points = gpd.points_from_xy(table[x], table[y], crs="EPSG:4326" if found[0] != "x" else None)
        frame = gpd.GeoDataFrame(table.drop(columns=[x, y]), geometry=points)
    if crs is not None:
        frame = frame.set_crs(crs, allow_override=True)
    return frame
