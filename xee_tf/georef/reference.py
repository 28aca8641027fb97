"""Where a raster lies: CRS and affine of an xarray object, read, written and compared."""

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
    forget_place,
    grid_mappings,
    name_dims,
    raster_variables,
    spatial_dims,
    variables,
)
from xee_tf.georef.coordinates import TOLERANCE, bounds, gap, pixel_centres
from xee_tf.georef.crs import MEND_CRS, crs_text, describe_crs, read_crs, same_crs
from xee_tf.georef.find import find_affine, find_crs, read_affine
from xee_tf.georef.units import axis_units, crs_units, full_turn

__all__ = ["GeoRef", "GridLike", "grid_mapping", "read_georef", "same_grid", "write_georef"]

_SAME_PLACE = 0.01
_FARTHEST = 540.0  # degrees of longitude: half a turn beyond 0..360

ImageT = TypeVar("ImageT", xr.Dataset, xr.DataArray)


class GridLike(Protocol):
    """What has a place: a `GeoRef`, a `PatchGrid`."""

    @property
    def crs(self) -> Any:
        """Anything that pyproj understands."""

    @property
    def affine(self) -> Affine:
        """From pixel corners to (x, y)."""

    @property
    def shape(self) -> Size:
        """Pixels."""


@dataclass(frozen=True)
class GeoRef:
    """The place of a raster.

    Parameters
    ----------
    crs : pyproj.CRS
        The coordinate reference system; coordinates are (x, y), longitude before latitude.
    affine : Affine
        From pixel corners (column, row) to (x, y); signs and shear are free.
    shape : Size
        Pixels.
    x_dim, y_dim : str
        Names of the dimensions.

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
        """As in a mixer: "EPSG:n" where that code identifies the CRS exactly, else WKT2."""
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
    """Find out where a raster lies; reads coordinates and attributes, never pixels.

    Parameters
    ----------
    obj : Dataset or DataArray
        With x and y dimensions in any order (see `spatial_dims`).
    crs : optional
        Anything that pyproj understands; wins over what the object says. Else, in this order: the CF grid
        mapping that rioxarray and odc-geo write (``spatial_ref``), then ``attrs["crs"]`` of the object
        and of its variables (Xee), then the ``proj:`` attributes of the Zarr convention.
    transform : Affine or sequence of 6 numbers, optional
        ``[a, b, c, d, e, f]`` in the order of rasterio and Earth Engine; wins over what the object says.
        Else the x and y coordinates (pixel centres, ascending or descending), in the units that their
        attribute ``units`` names, or else in those of the CRS. Where the ``GeoTransform`` of
        the grid mapping agrees with them it is preferred, being exact; without coordinates it is all
        there is, and may be sheared.

    Raises
    ------
    GeoreferenceError
        If there is no CRS, no affine, no x/y dimension, or the coordinates are not evenly spaced, have
        units that do not fit the CRS, or cannot be degrees as `crs` says.
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
    shape = Size(x=int(obj.sizes[x_dim]), y=int(obj.sizes[y_dim]))
    if not shape.pixels:
        raise GeoreferenceError(f"The raster has no pixels: {x_dim} is {shape.x} long and {y_dim} {shape.y}.")
    found = find_crs(obj, x_dim, y_dim) if crs is None else read_crs(crs)
    affine = find_affine(obj, x_dim, y_dim, shape, found) if transform is None else read_affine(transform)
    georef = GeoRef(found, affine, shape, x_dim, y_dim)
    if crs is not None:
        _require_degrees(georef)
        _compare_crs(obj, georef)
    return georef


def _require_degrees(georef: GeoRef) -> None:
    """Raise an error if coordinates cannot be in degrees, as a user says that they are."""
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
            f"The raster covers {georef.x_dim} {x} and {georef.y_dim} {y}, which cannot be the degrees of "
            f"{describe_crs(crs)}. crs= names the CRS of the coordinates and reprojects nothing. Leave it "
            f"out where the raster has a CRS, and reproject with ds.rio.reproject({crs_text(crs)[:40]!r})."
        )


def _compare_crs(obj: Raster, georef: GeoRef) -> None:
    """Warn if the raster has another CRS than the one that is given."""
    with suppress(GeoreferenceError):  # it has none, or a wrong one
        own = find_crs(obj, georef.x_dim, georef.y_dim)
        if not same_crs(own, georef.crs):
            warn(
                f"crs= is {describe_crs(georef.crs)}, but the raster's own CRS is {describe_crs(own)}. crs= "
                "is used, and nothing is reprojected. To reproject, use ds.rio.reproject(...)."
            )


def write_georef(obj: ImageT, grid: GridLike, x_dim: str = "x", y_dim: str = "y") -> ImageT:
    """Give an object the place of a grid, by CF's conventions; nothing is computed.

    Parameters
    ----------
    obj : Dataset or DataArray
        With dimensions `x_dim` and `y_dim` of the grid's size.
    grid : GeoRef, PatchGrid or alike
        Has ``crs`` (anything pyproj understands), ``affine`` and ``shape``.
    x_dim, y_dim : str
        Names of the dimensions.

    Returns
    -------
    Dataset or DataArray
        A copy with pixel-centre coordinates in units of the CRS (if the affine is sheared, in pixels, as
        odc-geo has it, so that a part of the raster keeps its place), the scalar coordinate ``spatial_ref``
        (``crs_wkt``, ``spatial_ref``, ``GeoTransform``) and ``encoding["grid_mapping"]`` on each raster
        variable. Coordinates that are there and lie on the grid keep their numbers, so that the result
        aligns with what it was made from; what contradicts the grid is removed. ``.rio`` knows the names of
        the dimensions.

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
        raise GeoreferenceError(f"The grid has no CRS. {MEND_CRS}")
    crs, affine = read_crs(grid.crs), grid.affine
    sizes = {y_dim: grid.shape.y, x_dim: grid.shape.x}
    found = {name: obj.sizes.get(name) for name in sizes}
    if found != sizes:
        raise GridMismatchError(f"The grid has the sizes {sizes}, but the raster has {found}.")

    centres: dict[str, xr.Variable] = {}
    if not (affine.b or affine.d):
        for name, axis, values in zip((x_dim, y_dim), "XY", pixel_centres(affine, grid.shape), strict=True):
            there = obj.coords[name].variable if name in obj.coords else None
            kept = there is not None and _lies_on(there, name, values, crs)
            numbers = there.values if there is not None and kept else values
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
    forget_place(result)
    for _, variable in raster_variables(result, x_dim, y_dim):
        forget_place(variable)
        variable.encoding["grid_mapping"] = GRID_MAPPING
    return name_dims(result, x_dim, y_dim)


def _lies_on(coord: xr.Variable, name: str, centres: NDArray[np.float64], crs: pyproj.CRS) -> bool:
    """Whether a coordinate has the pixel centres of a grid already, to within its own rounding."""
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
    """The CRS as a scalar variable: as CF has it, or as WKT alone where pyproj has no words of CF for it."""
    try:
        attrs = dict(crs.to_cf())
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        attrs = {"crs_wkt": crs.to_wkt()}
    return xr.Variable((), 0, {**attrs, GRID_MAPPING: crs.to_wkt()})


def _axis_attrs(crs: pyproj.CRS, axis: str) -> dict[str, Any]:
    found: dict[str, Any] = next((cf for cf in crs.cs_to_cf() if cf.get("axis") == axis), {"axis": axis})
    units = crs_units(crs)
    # pyproj writes "degrees_east" whatever the angle, and lengths other than metres as numbers.
    return found if units in ("degree", "metre") or "units" not in found else {**found, "units": units}


def same_grid(first: GeoRef, second: GeoRef, names: Sequence[str] = ("the first", "the second")) -> None:
    """Check that two rasters share one grid: CRS, origin, pixel size (to a hundredth of a pixel), shape.

    Raises
    ------
    GridMismatchError
        Saying what differs, by how much, and how to mend it.

    Examples
    --------
    >>> a = GeoRef(pyproj.CRS("EPSG:32119"), Affine(28.5, 0, 630534, 0, -28.5, 228114), Size(x=489, y=443))
    >>> b = GeoRef(pyproj.CRS("EPSG:32119"), Affine(28.5, 0, 630591, 0, -28.5, 228114), Size(x=489, y=443))
    >>> same_grid(a, b, ("image", "labels"))
    Traceback (most recent call last):
    ...
    xee_tf.errors.GridMismatchError: image and labels are not on one grid. Origin: labels starts 2.0 pixels \
further along x and 0.0 along y. Bring one onto the grid of the other: labels.rio.reproject_match(image).
    """
    one, two = names
    differences = []
    mend = f"Bring one onto the grid of the other: {two}.rio.reproject_match({one})."
    if not same_crs(first.crs, second.crs):
        differences.append(f"CRS: {describe_crs(first.crs)} and {describe_crs(second.crs)}.")
        mend += (
            f" Or, if you know that the CRSs mean the same, make them equal: "
            f"{two}.rio.write_crs({one}.rio.crs)."
        )
    if gap(first.affine, second.affine, first.shape) > _SAME_PLACE:
        steps = [(g.affine.a, g.affine.b, g.affine.d, g.affine.e) for g in (first, second)]
        turned = Affine(steps[1][0], steps[1][1], first.affine.c, steps[1][2], steps[1][3], first.affine.f)
        if gap(first.affine, turned, first.shape) > _SAME_PLACE:
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
        raise GridMismatchError(f"{one} and {two} are not on one grid. {' '.join(differences)} {mend}")


def _pixel(affine: Affine) -> str:
    text = f"{affine.a} x {affine.e}"
    return text if not (affine.b or affine.d) else f"{text} (shear {affine.b}, {affine.d})"
