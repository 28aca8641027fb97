"""Read, write and compare the georeference (CRS and affine) of xarray objects."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import pyproj
import xarray as xr
from affine import Affine
from numpy.typing import NDArray

from xee_tf.errors import GeoreferenceError, GridMismatchError, warn
from xee_tf.geometry import Size
from xee_tf.georef.conventions import (
    GRID_MAPPING,
    Raster,
    bare_variables,
    drop_georeference,
    grid_mappings,
    name_dims,
    spatial_dims,
    variables,
)
from xee_tf.georef.coordinates import TOLERANCE, bounds, corner_distance, pixel_centres
from xee_tf.georef.crs import FIX_CRS, crs_option, crs_text, describe_crs, read_crs, same_crs
from xee_tf.georef.find import find_affine, find_crs, read_affine
from xee_tf.georef.units import axis_units, crs_units, full_turn

__all__ = ["GeoRef", "GridLike", "grid_mapping", "read_georef", "same_grid", "write_georef"]

_SAME_PLACE = 0.01  # maximum distance between equal grids, in pixels
_FARTHEST = 540.0  # maximum longitude in degrees: half a turn beyond 0..360

ImageT = TypeVar("ImageT", xr.Dataset, xr.DataArray)


class GridLike(Protocol):
    """An object with a georeference, such as `GeoRef` or `PatchGrid`."""

    @property
    def crs(self) -> Any:
        """The CRS, in any form that pyproj accepts."""

    @property
    def affine(self) -> Affine:
        """The affine from pixel corners to (x, y)."""

    @property
    def shape(self) -> Size:
        """The size in pixels."""


@dataclass(frozen=True)
class GeoRef:
    """The georeference of a raster.

    Parameters
    ----------
    crs : pyproj.CRS
        The coordinate reference system; coordinates are (x, y), longitude before latitude.
    affine : Affine
        Maps pixel corners (column, row) to (x, y); any signs and shear are allowed.
    shape : Size
        Size of the raster in pixels.
    x_dim, y_dim : str
        Names of the spatial dimensions.

    Examples
    --------
    >>> georef = GeoRef(pyproj.CRS("EPSG:32633"), Affine(30, 0, 500000, 0, -30, 60), Size(x=3, y=2))
    >>> georef.crs_text, georef.bounds
    ('EPSG:32633', (500000.0, 0.0, 500090.0, 60.0))
    """

    crs: pyproj.CRS
    affine: Affine
    shape: Size
    x_dim: str = "x"
    y_dim: str = "y"

    @property
    def crs_text(self) -> str:
        """The CRS as in a mixer: "EPSG:n" if that code identifies it exactly, else WKT2."""
        return crs_text(self.crs)

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) of the outer edges, in units of the CRS."""
        return bounds(self.affine, self.shape.window)

    @property
    def middle(self) -> float:
        """The x halfway between left and right."""
        left, _, right, _ = self.bounds
        return (left + right) / 2


def read_georef(
    obj: Raster,
    crs: Any = None,
    transform: Affine | Sequence[float] | None = None,
) -> GeoRef:
    """Read the georeference of a raster from its coordinates and attributes; pixels are not read.

    Parameters
    ----------
    obj : Dataset or DataArray
        The raster, with x and y dimensions in any order (see `spatial_dims`).
    crs : optional
        The CRS, in any form that pyproj accepts; it overrides the CRS of the object. By default, the CRS is
        read from these sources, in this order: the CF grid mapping that rioxarray and odc-geo write
        (``spatial_ref``), ``attrs["crs"]`` of the object and of its variables (Xee), and the attributes of
        the Zarr convention proj.
    transform : Affine or sequence of 6 numbers, optional
        The affine ``[a, b, c, d, e, f]``, in the order of rasterio and Earth Engine; it overrides the
        georeference of the object. By default, it is computed from the x and y coordinates (pixel centers,
        ascending or descending), in the units of their attribute ``units`` or else of the CRS. If the
        ``GeoTransform`` of the grid mapping agrees with the coordinates, it is used instead, because it is
        exact. Without coordinates only the ``GeoTransform`` is used, which may have shear, or else
        ``spatial:transform`` of the Zarr convention spatial, if the raster has the size for which it was
        written.

    Returns
    -------
    GeoRef

    Raises
    ------
    GeoreferenceError
        If there is no CRS, no affine or no x/y dimension, or if the coordinates are not evenly spaced, have
        units that are incompatible with the CRS, or cannot be degrees although `crs` is geographic.
    GridMismatchError
        If variables of the dataset have different CRSs.

    Examples
    --------
    >>> image = xr.DataArray(
    ...     [[1, 2, 3], [4, 5, 6]],
    ...     coords={"y": [45.0, 15.0], "x": [500015.0, 500045.0, 500075.0]},
    ...     dims=("y", "x"),
    ... )
    >>> georef = read_georef(image, crs="EPSG:32633")
    >>> georef.crs_text, georef.shape
    ('EPSG:32633', Size(x=3, y=2))
    >>> tuple(georef.affine)[:6]
    (30.0, 0.0, 500000.0, 0.0, -30.0, 60.0)
    """
    x_dim, y_dim = spatial_dims(obj)
    if unknown := [dim for dim in (x_dim, y_dim) if np.isnan(obj.sizes[dim])]:
        raise GeoreferenceError(
            f"The length of {unknown[0]} is unknown, because pixels were selected by their values in a Dask "
            "array. Compute it with .compute_chunk_sizes() of the array, or use ds.where(...) instead, which "
            "keeps the grid."
        )
    shape = Size(x=int(obj.sizes[x_dim]), y=int(obj.sizes[y_dim]))
    if not shape.pixels:
        raise GeoreferenceError(
            f"The raster has no pixels: {x_dim} has length {shape.x} and {y_dim} has length {shape.y}."
        )
    found = find_crs(obj, x_dim, y_dim) if crs is None else crs_option(crs)
    affine = find_affine(obj, x_dim, y_dim, shape, found) if transform is None else read_affine(transform)
    georef = GeoRef(found, affine, shape, x_dim, y_dim)
    if crs is not None:
        _require_degrees(georef)
        _compare_crs(obj, georef)
    return georef


def _require_degrees(georef: GeoRef) -> None:
    """Raise an error if the CRS is geographic but the coordinates are out of range for degrees."""
    crs, affine = georef.crs, georef.affine
    if (turn := full_turn(crs)) is None:
        return
    degrees = 360 / turn
    left, bottom, right, top = (number * degrees for number in georef.bounds)
    beyond = max(abs(left), abs(right)) > _FARTHEST
    beyond |= max(abs(bottom), abs(top)) > 90 + (abs(affine.d) + abs(affine.e)) * degrees * (1 + TOLERANCE)
    if beyond:
        x, y = (f"{one:.10g} to {other:.10g}" for one, other in ((left, right), (bottom, top)))
        raise GeoreferenceError(
            f"The raster covers {georef.x_dim} {x} and {georef.y_dim} {y}, which cannot be degrees in "
            f"{describe_crs(crs)}. crs= is the CRS of the coordinates and does not reproject. Omit it if the "
            f"raster has a CRS, and reproject with ds.rio.reproject({crs_text(crs)[:40]!r})."
        )


def _compare_crs(obj: Raster, georef: GeoRef) -> None:
    """Warn if the CRS of the raster differs from the one that the user passed."""
    with suppress(GeoreferenceError):  # the raster has no CRS, or an invalid one
        own = find_crs(obj, georef.x_dim, georef.y_dim)
        if not same_crs(own, georef.crs):
            warn(
                f"crs= is {describe_crs(georef.crs)}, but the raster's own CRS is {describe_crs(own)}. crs= "
                "is used without reprojection. To reproject, use ds.rio.reproject(...)."
            )


def write_georef(obj: ImageT, grid: GridLike, x_dim: str = "x", y_dim: str = "y") -> ImageT:
    """Write the georeference of a grid to an object, following the CF conventions; nothing is computed.

    Parameters
    ----------
    obj : Dataset or DataArray
        The object, with dimensions `x_dim` and `y_dim` of the size of the grid.
    grid : GeoRef, PatchGrid or similar
        An object with ``crs`` (in any form that pyproj accepts), ``affine`` and ``shape``.
    x_dim, y_dim : str
        Names of the spatial dimensions.

    Returns
    -------
    Dataset or DataArray
        A copy with pixel-center coordinates in units of the CRS (for an affine with shear, in pixels, as in
        odc-geo, so that a subset keeps its georeference), the scalar coordinate ``spatial_ref`` (``crs_wkt``,
        ``spatial_ref``, ``GeoTransform``) and ``encoding["grid_mapping"]`` on each raster variable. Existing
        coordinates that match the grid keep their values, so that the result aligns with `obj`; anything
        that contradicts the grid is removed. The spatial dimensions are set for ``.rio``.

    Raises
    ------
    GeoreferenceError
        If the grid has no CRS.
    GridMismatchError
        If the sizes differ.

    Examples
    --------
    >>> grid = GeoRef(pyproj.CRS("EPSG:32633"), Affine(30, 0, 500000, 0, -30, 60), Size(x=3, y=2))
    >>> image = write_georef(xr.DataArray([[1, 2, 3], [4, 5, 6]], dims=("y", "x")), grid)
    >>> image.x.values, image.rio.crs.to_epsg(), image.spatial_ref.attrs["GeoTransform"]
    (array([500015., 500045., 500075.]), 32633, '500000.0 30.0 0.0 60.0 0.0 -30.0')
    """
    if grid.crs is None:
        raise GeoreferenceError(f"The grid has no CRS. {FIX_CRS}")
    crs, affine = read_crs(grid.crs), grid.affine
    sizes = {y_dim: grid.shape.y, x_dim: grid.shape.x}
    found = {name: obj.sizes.get(name) for name in sizes}
    if found != sizes:
        raise GridMismatchError(f"The sizes of the raster are {found}; expected those of the grid, {sizes}.")

    centres: dict[str, xr.Variable] = {}
    if not (affine.b or affine.d):
        for name, axis, values in zip((x_dim, y_dim), "XY", pixel_centres(affine, grid.shape), strict=True):
            existing = obj.coords[name].variable if name in obj.coords else None
            kept = existing is not None and _matches_centres(existing, name, values, crs)
            numbers = existing.values if existing is not None and kept else values
            centres[name] = xr.Variable(name, numbers, _axis_attrs(crs, axis))
    else:
        for name, axis, length in zip((x_dim, y_dim), "XY", grid.shape.xy, strict=True):
            centres[name] = xr.Variable(name, np.arange(length) + 0.5, {"axis": axis, "units": "pixel"})
    stale = [*grid_mappings(obj, x_dim, y_dim), GRID_MAPPING, x_dim, y_dim]
    stale = [name for name in stale if name in variables(obj)]
    stale += [name for name in ("xc", "yc") if name in obj.coords]  # bands may have these names
    result = obj.copy(deep=False).drop_vars(stale)
    mapping = grid_mapping(crs)
    mapping.attrs["GeoTransform"] = " ".join(repr(float(number)) for number in affine.to_gdal())
    result = result.assign_coords({GRID_MAPPING: mapping, **centres})
    drop_georeference(result)
    for _, variable in bare_variables(result, x_dim, y_dim):
        drop_georeference(variable)
        variable.encoding["grid_mapping"] = GRID_MAPPING
    return name_dims(result, x_dim, y_dim)


def _matches_centres(coord: xr.Variable, name: str, centres: NDArray[np.float64], crs: pyproj.CRS) -> bool:
    """Return whether a coordinate equals the pixel centers of a grid, within its own precision."""
    if coord.dims != (name,) or coord.size != centres.size or coord.dtype.kind not in "iuf":
        return False
    try:
        if axis_units(name, coord.attrs, crs, coord.values) != 1:
            return False
    except GeoreferenceError:
        return False
    off = np.abs(coord.values.astype(np.float64) - centres).max()
    step = abs(centres[-1] - centres[0]) / (centres.size - 1) if centres.size > 1 else 0.0
    return bool(off <= max(TOLERANCE * step, 4 * float(np.spacing(np.abs(coord.values).max()))))


def grid_mapping(crs: pyproj.CRS) -> xr.Variable:
    """Return the CRS as a scalar grid mapping variable: in CF form, or as WKT if CF cannot describe it."""
    try:
        attrs = dict(crs.to_cf())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        attrs = {"crs_wkt": crs.to_wkt()}
    return xr.Variable((), 0, {**attrs, GRID_MAPPING: crs.to_wkt()})


def _axis_attrs(crs: pyproj.CRS, axis: str) -> dict[str, Any]:
    found: dict[str, Any] = next((cf for cf in crs.cs_to_cf() if cf.get("axis") == axis), {"axis": axis})
    units = crs_units(crs)
    # pyproj writes "degrees_east" for any unit of angle, and lengths other than meters as numbers.
    return found if units in ("degree", "metre") or "units" not in found else {**found, "units": units}


def same_grid(first: GeoRef, second: GeoRef, names: Sequence[str] = ("the first", "the second")) -> None:
    """Check that two rasters have the same CRS, origin and pixel size (to a hundredth of a pixel), and shape.

    Raises
    ------
    GridMismatchError
        If the grids differ; the message describes the differences and how to fix them.

    Examples
    --------
    >>> a = GeoRef(pyproj.CRS("EPSG:32119"), Affine(28.5, 0, 630534, 0, -28.5, 228114), Size(x=489, y=443))
    >>> b = GeoRef(pyproj.CRS("EPSG:32119"), Affine(28.5, 0, 630591, 0, -28.5, 228114), Size(x=489, y=443))
    >>> same_grid(a, b, ("image", "labels"))
    Traceback (most recent call last):
    ...
    xee_tf.errors.GridMismatchError: image and labels are not on the same grid. Origin: labels starts 2.0 \
pixels further along x and 0.0 along y. Reproject one to the grid of the other: \
labels.rio.reproject_match(image).
    """
    one, two = names
    differences = []
    fix = f"Reproject one to the grid of the other: {two}.rio.reproject_match({one})."
    if not same_crs(first.crs, second.crs):
        differences.append(f"CRS: {describe_crs(first.crs)} and {describe_crs(second.crs)}.")
        fix += f" Or, if the CRSs are equivalent, make them equal: {two}.rio.write_crs({one}.rio.crs)."
    if corner_distance(first.affine, second.affine, first.shape) > _SAME_PLACE:
        steps = [(g.affine.a, g.affine.b, g.affine.d, g.affine.e) for g in (first, second)]
        turned = Affine(steps[1][0], steps[1][1], first.affine.c, steps[1][2], steps[1][3], first.affine.f)
        if corner_distance(first.affine, turned, first.shape) > _SAME_PLACE:
            differences.append(f"Pixel size: {_pixel(first.affine)} and {_pixel(second.affine)}.")
        column, row = ~first.affine @ (second.affine.c, second.affine.f)
        if max(abs(column), abs(row)) > _SAME_PLACE:
            differences.append(
                f"Origin: {two} starts {round(column, 3)} pixels further along x and {round(row, 3)} along y."
            )
    if first.shape != second.shape:
        (wide, high), (wide2, high2) = first.shape.xy, second.shape.xy
        differences.append(f"Shape: {wide} x {high} and {wide2} x {high2} pixels (width x height).")
    if differences:
        raise GridMismatchError(f"{one} and {two} are not on the same grid. {' '.join(differences)} {fix}")


def _pixel(affine: Affine) -> str:
    text = f"{affine.a} x {affine.e}"
    return text if not (affine.b or affine.d) else f"{text} (shear {affine.b}, {affine.d})"
