"""Conventions for georeferences of xarray objects: CF, rioxarray, odc-geo, Xee and Zarr."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import rioxarray  # noqa: F401 - registers .rio, whose rules for dimensions are used here
import xarray as xr
from rioxarray.exceptions import MissingSpatialDimensionError

from xee_tf.errors import GeoreferenceError
from xee_tf.georef.units import is_lon_lat

__all__ = [
    "AFFINE_ATTRS",
    "CRS_ATTRS",
    "GRID_MAPPING",
    "PROJ_UUID",
    "SPATIAL_UUID",
    "Raster",
    "bare_variables",
    "curvilinear",
    "drop_georeference",
    "grid_mappings",
    "is_grid_mapping",
    "mapping_name",
    "name_dims",
    "raster_variables",
    "spatial_dims",
    "variables",
    "without_zarr_conventions",
]

Raster = xr.Dataset | xr.DataArray
RasterT = TypeVar("RasterT", xr.Dataset, xr.DataArray)

GRID_MAPPING = "spatial_ref"

# Names in addition to those of rioxarray: used by Xee before version 0.1.
_MORE_DIMS = (("lon", "lat"), ("X", "Y"))
# Names that errors take for an axis, and the reader does not.
_LIKE_X = frozenset({"easting", "east", "col", "cols", "column", "columns", "sample", "samples", "width"})
_LIKE_Y = frozenset({"northing", "north", "row", "rows", "line", "lines", "height"})
# Attributes with a CRS or an affine: of Xee, xarray's former rasterio reader and the Zarr conventions.
CRS_ATTRS = ("crs", "proj:wkt2", "proj:code", "proj:projjson")
AFFINE_ATTRS = ("transform", "spatial:transform")

PROJ_UUID = "f17cb550-5864-4468-aeb7-f3180cfb622f"
SPATIAL_UUID = "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4"
"""What identifies the Zarr conventions "proj" and "spatial" in the attribute ``zarr_conventions``."""

_ZARR_ATTRS = frozenset(
    {"proj:wkt2", "proj:code", "proj:projjson", "spatial:bbox", "spatial:dimensions", "spatial:registration"}
    | {"spatial:shape", "spatial:transform", "spatial:transform_type"}
)
_STALE_ATTRS = frozenset({*CRS_ATTRS, *AFFINE_ATTRS, "crs_transform", "grid_mapping"})
"""Attributes that may contradict a georeference written later, in addition to those of Zarr conventions."""


def spatial_dims(obj: Raster) -> tuple[str, str]:
    """Return the names of the x and y dimensions, by the rules of rioxarray and a few additional names.

    In this order: names set by the user (``.rio.set_spatial_dims``), x/y, longitude/latitude, coordinates
    with the CF attributes axis or standard_name, ``spatial:dimensions`` of the Zarr convention, lon/lat, X/Y.
    The order of the dimensions does not matter.

    Raises
    ------
    GeoreferenceError
        If no such dimensions are found.

    Examples
    --------
    >>> spatial_dims(xr.DataArray([[[0]]], dims=("time", "lon", "lat")))
    ('lon', 'lat')
    """
    try:
        return str(obj.rio.x_dim), str(obj.rio.y_dim)
    except MissingSpatialDimensionError:
        for names in (*_declared_dims(obj), *_MORE_DIMS):
            if set(names) <= set(obj.dims):
                return names
    if len(obj.dims) < 2:
        raise GeoreferenceError(
            f"A raster must have two spatial dimensions; this one has the dimensions {tuple(obj.dims)}. "
            "Select a range instead of one row or column, for example ds.isel(x=slice(0, 1))."
        )
    why = curvilinear(obj)
    x_dim, y_dim = _similar(obj.dims, _LIKE_X, "easting"), _similar(obj.dims, _LIKE_Y, "northing")
    raise GeoreferenceError(
        f"No x and y dimensions among {tuple(obj.dims)}"
        f"{f': {why}' if why else ''}. Rename them, for example "
        f"ds.rename({{{x_dim!r}: 'x', {y_dim!r}: 'y'}}), or set their names: "
        f"ds.rio.set_spatial_dims(x_dim={x_dim!r}, y_dim={y_dim!r})."
    )


def _similar(dims: Iterable[Hashable], known: frozenset[str], example: str) -> Hashable:
    """Return the dimension with one of the known names, or an example of a name."""
    return next((dim for dim in dims if str(dim).lower() in known), example)


def _declared_dims(obj: Raster) -> Iterator[tuple[str, str]]:
    """Yield the x and y dimensions that the Zarr convention "spatial" names; it has y before x."""
    for attrs in (obj.attrs, *(variable.attrs for variable in variables(obj).values())):
        declared = attrs.get("spatial:dimensions")
        if isinstance(declared, list | tuple) and len(declared) == 2:
            yield str(declared[1]), str(declared[0])


def name_dims(obj: RasterT, x_dim: str, y_dim: str) -> RasterT:
    """Set the spatial dimensions for ``.rio`` in place, unless ``.rio`` already detects them.

    Names set by the user are not copied from one object to another.
    """
    try:
        known = (str(obj.rio.x_dim), str(obj.rio.y_dim)) == (x_dim, y_dim)
    except MissingSpatialDimensionError:
        known = False
    if not known:
        obj.rio.set_spatial_dims(x_dim, y_dim, inplace=True)
    return obj


def raster_variables(obj: Raster, x_dim: str, y_dim: str) -> Iterator[tuple[Hashable, xr.DataArray]]:
    """Yield the names and data variables that have both spatial dimensions."""
    if isinstance(obj, xr.DataArray):
        yield obj.name, obj
        return
    for name, variable in obj.data_vars.items():
        if {x_dim, y_dim} <= set(variable.dims):
            yield name, variable


def bare_variables(obj: Raster, x_dim: str, y_dim: str) -> Iterator[tuple[Hashable, xr.Variable]]:
    """Yield the names and data variables that have both spatial dimensions, without their coordinates.

    To find the coordinates of a variable, xarray compares all variables.
    """
    if isinstance(obj, xr.DataArray):
        yield obj.name, obj.variable
        return
    for name in obj.data_vars:
        variable = obj.variables[name]
        if {x_dim, y_dim} <= set(variable.dims):
            yield name, variable


def variables(obj: Raster) -> Mapping[Any, Any]:
    """Return the variables to search for grid mappings; xr.open_zarr keeps them in the data variables."""
    return obj.variables if isinstance(obj, xr.Dataset) else obj.coords


def mapping_name(obj: Any) -> str | None:
    """Return the name of the grid mapping that a variable refers to."""
    name = obj.encoding.get("grid_mapping") or obj.attrs.get("grid_mapping")
    # The extended form of CF is "crs: x y"; the first mapping is that of the raster.
    return str(name).split()[0].rstrip(":") if name else None


def grid_mappings(obj: Raster, x_dim: str, y_dim: str) -> dict[str, Hashable]:
    """Return the names of existing grid mappings, each with the first variable that refers to it."""
    names: dict[str, Hashable] = {}
    for variable, array in bare_variables(obj, x_dim, y_dim):
        name = mapping_name(array)
        if name:
            names.setdefault(name, variable)
    names = names or {mapping_name(obj) or GRID_MAPPING: None}
    existing = {name: user for name, user in names.items() if name in variables(obj)}
    if existing:
        return existing
    found = (name for name, value in variables(obj).items() if not value.dims and is_grid_mapping(value))
    return dict.fromkeys(map(str, found))


def drop_georeference(obj: xr.Dataset | xr.DataArray | xr.Variable) -> None:
    """Remove the attributes and the encoding that may contradict a georeference written later, in place."""
    kept = without_zarr_conventions(obj.attrs)
    obj.attrs = {key: value for key, value in kept.items() if key not in _STALE_ATTRS}
    obj.encoding = {key: value for key, value in obj.encoding.items() if key != "grid_mapping"}


def without_zarr_conventions(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes without those of the Zarr conventions "proj" and "spatial" and their declarations.

    Declarations of other conventions are kept.

    Examples
    --------
    >>> declared = [{"uuid": PROJ_UUID, "name": "proj"}, {"name": "multiscales"}]
    >>> without_zarr_conventions({"zarr_conventions": declared, "proj:code": "EPSG:4326"})
    {'zarr_conventions': [{'name': 'multiscales'}]}
    """
    kept = {key: value for key, value in attrs.items() if key not in _ZARR_ATTRS}
    declared = kept.pop("zarr_conventions", None)
    if isinstance(declared, list | tuple) and (others := [each for each in declared if not _is_ours(each)]):
        kept["zarr_conventions"] = others
    return kept


def _is_ours(declared: Any) -> bool:
    return isinstance(declared, Mapping) and declared.get("uuid") in (PROJ_UUID, SPATIAL_UUID)


def is_grid_mapping(variable: Any) -> bool:
    """Return whether a variable describes a CRS in the form of CF, rioxarray or GDAL."""
    return bool({"crs_wkt", "spatial_ref", "gridmapping_name"} & set(variable.attrs))


def curvilinear(obj: Raster, *dims: str) -> str:
    """Describe two-dimensional longitudes and latitudes and how to handle them; "" if there are none."""
    found = [
        str(name)
        for name, coord in variables(obj).items()
        if coord.ndim == 2 and set(coord.dims) >= set(dims) and _names_lon_lat(str(name), coord.attrs)
    ]
    if len(found) < 2:
        return ""
    return (
        f"its coordinates {found[0]!r} and {found[1]!r} are two-dimensional (a curvilinear grid or a swath), "
        "which an affine cannot describe. Resample it to a regular grid first, for example with pyresample "
        "or xESMF"
    )


def _names_lon_lat(name: str, attrs: Mapping[str, Any]) -> bool:
    usual = re.fullmatch(r"(nav_|x|geo)?(lon|lat|longitude|latitude|long)", name.lower())
    return usual is not None or is_lon_lat(attrs)
