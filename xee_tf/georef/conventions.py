"""Where xarray objects keep their place, by the conventions of CF, rioxarray, odc-geo, Xee and Zarr."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from typing import Any, TypeVar

import rioxarray  # noqa: F401 - registers .rio, whose rules for dimensions are ours
import xarray as xr
from rioxarray.exceptions import MissingSpatialDimensionError

from xee_tf.errors import GeoreferenceError
from xee_tf.georef.units import is_lon_lat

__all__ = [
    "AFFINE_ATTRS",
    "CRS_ATTRS",
    "GRID_MAPPING",
    "Raster",
    "curvilinear",
    "forget_place",
    "grid_mappings",
    "is_grid_mapping",
    "mapping_name",
    "name_dims",
    "raster_variables",
    "spatial_dims",
    "variables",
]

Raster = xr.Dataset | xr.DataArray
RasterT = TypeVar("RasterT", xr.Dataset, xr.DataArray)

GRID_MAPPING = "spatial_ref"

# Names beside those that rioxarray knows: Xee's before its version 0.1.
_MORE_DIMS = (("lon", "lat"), ("X", "Y"))
# Attributes with a CRS or an affine: Xee's, those of xarray's former rasterio reader, the Zarr convention's.
CRS_ATTRS = ("crs", "proj:wkt2", "proj:code", "proj:projjson")
AFFINE_ATTRS = ("transform", "spatial:transform")

_STALE_ATTRS = frozenset({*CRS_ATTRS, *AFFINE_ATTRS, "crs_transform", "grid_mapping"})
"""Attributes that may contradict a place written later."""


def spatial_dims(obj: Raster) -> tuple[str, str]:
    """Names of the x and the y dimension, by rioxarray's rules and a few names more.

    In this order: set by the user (``.rio.set_spatial_dims``), x/y, longitude/latitude, coordinates with
    CF's axis or standard_name, lon/lat, X/Y. Their order in the array does not matter.

    Raises
    ------
    GeoreferenceError
        If there are none.

    Examples
    --------
    >>> spatial_dims(xr.DataArray([[[0]]], dims=("time", "lon", "lat")))
    ('lon', 'lat')
    """
    try:
        return str(obj.rio.x_dim), str(obj.rio.y_dim)
    except MissingSpatialDimensionError:
        for names in _MORE_DIMS:
            if set(names) <= set(obj.dims):
                return names
    why = curvilinear(obj)
    raise GeoreferenceError(
        f"No x and y dimensions among {tuple(obj.dims)}"
        f"{f': {why}' if why else ''}. Rename them, for example "
        "ds.rename(easting='x', northing='y'), or name them: "
        "ds.rio.set_spatial_dims(x_dim='easting', y_dim='northing')."
    )


def name_dims(obj: RasterT, x_dim: str, y_dim: str) -> RasterT:
    """Set the names of the dimensions for ``.rio``, in place, where they are not found by themselves.

    Names that a user set do not travel from one object to another.
    """
    try:
        known = (str(obj.rio.x_dim), str(obj.rio.y_dim)) == (x_dim, y_dim)
    except MissingSpatialDimensionError:
        known = False
    if not known:
        obj.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return obj


def raster_variables(obj: Raster, x_dim: str, y_dim: str) -> Iterator[tuple[Hashable, xr.DataArray]]:
    """The data variables with both spatial dimensions, and their names."""
    if isinstance(obj, xr.DataArray):
        yield obj.name, obj
        return
    for name, variable in obj.data_vars.items():
        if {x_dim, y_dim} <= set(variable.dims):
            yield name, variable


def variables(obj: Raster) -> Mapping[Any, Any]:
    """Where grid mappings are looked for: xr.open_zarr leaves them among the data variables."""
    return obj.variables if isinstance(obj, xr.Dataset) else obj.coords


def mapping_name(obj: Any) -> str | None:
    """The name of the grid mapping that a variable refers to."""
    name = obj.encoding.get("grid_mapping") or obj.attrs.get("grid_mapping")
    # CF's extended form is "crs: x y"; the first one is that of the raster.
    return str(name).split()[0].rstrip(":") if name else None


def grid_mappings(obj: Raster, x_dim: str, y_dim: str) -> dict[str, Hashable]:
    """Names of the grid mappings that are there, each with the first variable that names it."""
    names: dict[str, Hashable] = {}
    for variable, array in raster_variables(obj, x_dim, y_dim):
        name = mapping_name(array)
        if name:
            names.setdefault(name, variable)
    names = names or {mapping_name(obj) or GRID_MAPPING: None}
    there = {name: user for name, user in names.items() if name in variables(obj)}
    if there:
        return there
    found = (name for name, value in variables(obj).items() if not value.dims and is_grid_mapping(value))
    return dict.fromkeys(map(str, found))


def forget_place(obj: xr.Dataset | xr.DataArray | xr.Variable) -> None:
    """Remove the attributes and the encoding that may contradict a place written later, in place."""
    obj.attrs = {key: value for key, value in obj.attrs.items() if key not in _STALE_ATTRS}
    obj.encoding = {key: value for key, value in obj.encoding.items() if key != "grid_mapping"}


def is_grid_mapping(variable: Any) -> bool:
    """Whether a variable describes a CRS, as CF, rioxarray and GDAL write it."""
    return bool({"crs_wkt", "spatial_ref", "gridmapping_name"} & set(variable.attrs))


def curvilinear(obj: Raster, *dims: str) -> str:
    """What to do about two-dimensional longitudes and latitudes; empty if there are none."""
    found = [
        str(name)
        for name, coord in variables(obj).items()
        if coord.ndim == 2 and set(coord.dims) >= set(dims) and _names_lon_lat(str(name), coord.attrs)
    ]
    if len(found) < 2:
        return ""
    return (
        f"its coordinates {found[0]!r} and {found[1]!r} are two-dimensional, those of a curvilinear grid or "
        "a swath, and an affine cannot describe them. Resample it to a regular grid first, for example "
        "with pyresample or xESMF"
    )


def _names_lon_lat(name: str, attrs: Mapping[str, Any]) -> bool:
    usual = re.fullmatch(r"(nav_|x|geo)?(lon|lat|longitude|latitude|long)", name.lower())
    return usual is not None or is_lon_lat(attrs)
