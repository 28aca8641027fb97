"""Find the CRS and the affine of an xarray object."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import pyproj
import rasterio
import rasterio.errors
from affine import Affine
from rasterio.windows import Window

from xee_tf.display import quoted
from xee_tf.errors import GeoreferenceError, GridMismatchError, StorageError, excerpt
from xee_tf.geometry import Size
from xee_tf.georef.conventions import (
    AFFINE_ATTRS,
    CRS_ATTRS,
    Raster,
    bare_variables,
    curvilinear,
    grid_mappings,
    mapping_name,
    variables,
)
from xee_tf.georef.coordinates import TOLERANCE, Axis, affine_of_centres, corner_distance, fit_axis
from xee_tf.georef.crs import FIX_CRS, crs_of_cf, describe_crs, read_crs, same_crs
from xee_tf.georef.units import axis_units

__all__ = ["find_affine", "find_crs", "read_affine"]

# Attributes that data centers add to grid mappings or use instead of CF's, without case and underscores.
_OTHER_CRS_ATTRS = frozenset(
    {"epsg", "epsgcode", "spatialepsg", "proj4", "proj4text", "proj4string", "projstring", "projtext", "wkt"}
    | {"esripestring"}
)


def find_crs(obj: Raster, x_dim: str, y_dim: str) -> pyproj.CRS:
    """Return the CRS of the raster variables.

    Raises
    ------
    GeoreferenceError
        If there is no CRS, or it cannot be parsed.
    StorageError
        If there is no CRS because the file is damaged.
    GridMismatchError
        If variables have different CRSs.
    """
    found: list[tuple[Hashable, pyproj.CRS | None]] = [
        (mapping if user is None else user, _crs_of_mapping(variables(obj)[mapping].attrs, mapping))
        for mapping, user in grid_mappings(obj, x_dim, y_dim).items()
    ]
    if not any(crs for _, crs in found):
        found = [("the attributes", _crs_of_attrs(obj.attrs, "the raster"))]
    if not any(crs for _, crs in found):
        # Xee 0.1 writes the CRS to each variable. In earlier versions, variables had the CRS of their source,
        # and the dataset that of the grid; the dataset therefore takes precedence.
        found = [(name, _crs_of_attrs(v.attrs, repr(name))) for name, v in bare_variables(obj, x_dim, y_dim)]
    known = [(name, crs) for name, crs in found if crs]
    if not known:
        _require_readable(obj)
        raise GeoreferenceError(f"The raster has no CRS{_why_no_crs(obj, x_dim, y_dim)}. {FIX_CRS}")
    name, crs = known[0]
    for other, another in known[1:]:
        if not same_crs(crs, another):
            raise GridMismatchError(
                f"Variables of one image have different CRSs: {name} has {describe_crs(crs)}, {other} has "
                f"{describe_crs(another)}. Reproject one to the grid of the other, or pass crs= if they are "
                "equivalent."
            )
    return crs


def _require_readable(obj: Raster) -> None:
    """Raise an error if the last pixel of a GeoTIFF cannot be read: the CRS of an incomplete file is lost."""
    sources = {each.encoding.get("source") for each in (obj, *variables(obj).values())}
    for source in sorted(source for source in sources if isinstance(source, str)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                file = rasterio.open(source, driver="GTiff")
        except rasterio.errors.RasterioError:  # of another format
            continue
        try:
            with file:
                file.read(1, window=Window(file.width - 1, file.height - 1, 1, 1))
        except rasterio.errors.RasterioError as error:
            why = str(error.__cause__ or error).rstrip(".")
            raise StorageError(
                f"{source} is damaged or incomplete: {why}. Copy or download it again."
            ) from error


def _why_no_crs(obj: Raster, x_dim: str, y_dim: str) -> str:
    named = [mapping_name(array) for _, array in bare_variables(obj, x_dim, y_dim)]
    lost = [name for name in named if name and name not in variables(obj)]
    if lost:
        return (
            f": its variables refer to the grid mapping {lost[0]!r}, which was not found. Open the file with "
            "decode_coords='all', or keep that variable when you select bands"
        )
    if why := curvilinear(obj, x_dim, y_dim):
        return f": {why}. If {x_dim} and {y_dim} are projected coordinates, specify the CRS"
    for name in grid_mappings(obj, x_dim, y_dim):
        held = sorted(str(key) for key in variables(obj)[name].attrs if key != "GeoTransform")
        if held:
            return (
                f": its grid mapping {name!r} has the attributes {quoted(held)}, none of which defines a CRS"
            )
    if any(named):
        return ": its file does not define one"
    return " (its dimensions look like degrees: EPSG:4326?)" if x_dim.startswith("lon") else ""


def _crs_of_mapping(attrs: Mapping[str, Any], name: str) -> pyproj.CRS | None:
    for key in ("crs_wkt", "spatial_ref"):
        if _is_given(attrs.get(key)):
            return read_crs(attrs[key], f"{name}.attrs[{key!r}]")
    others = (key for key in attrs if str(key).lower().replace("_", "") in _OTHER_CRS_ATTRS)
    other = next((key for key in others if _is_given(attrs[key])), None)
    if "grid_mapping_name" in attrs:
        try:
            return crs_of_cf(attrs)
        except (KeyError, TypeError, ValueError, pyproj.exceptions.CRSError) as error:
            if other is None:
                raise GeoreferenceError(
                    f"The grid mapping {name!r} ({attrs['grid_mapping_name']}) cannot be parsed: "
                    f"{error}. {FIX_CRS}"
                ) from None
    if other is None:
        return None
    value = attrs[other]
    if "epsg" in other.lower() and isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return read_crs(value, f"{name}.attrs[{other!r}]")


def _crs_of_attrs(attrs: Mapping[str, Any], source: str) -> pyproj.CRS | None:
    for key in CRS_ATTRS:
        if _is_given(attrs.get(key)):
            return read_crs(attrs[key], f"{source} (attribute {key!r})")
    return None


def _is_given(value: Any) -> bool:
    return isinstance(value, np.ndarray) or bool(value)


def find_affine(obj: Raster, x_dim: str, y_dim: str, shape: Size, crs: pyproj.CRS) -> Affine:
    """Return the affine of the raster in units of its CRS, from its coordinates and its GeoTransform.

    Coordinates are in the units of their attribute ``units``; a GeoTransform is in units of the CRS.

    Raises
    ------
    GeoreferenceError
        If there is no affine, or coordinates are not evenly spaced, contradict a sheared GeoTransform, or
        have units that are incompatible with the CRS.
    """
    x, y = (obj.coords[d] if d in obj.coords and obj.coords[d].dims == (d,) else None for d in (x_dim, y_dim))
    needed = any(axis is None or axis.size < 2 for axis in (x, y))
    bare = {dim: obj.sizes[dim] for dim, axis in ((x_dim, x), (y_dim, y)) if axis is None}
    stored = _stored_affine(obj, x_dim, y_dim, needed, bare)
    if x is None and y is None:
        return _affine_without_axes(obj, stored, x_dim, y_dim, shape, crs)
    if stored is None and (x is None or y is None):
        raise GeoreferenceError(
            f"There are no coordinates along {y_dim if y is None else x_dim}. Add them, call "
            "ds.rio.write_transform(...), or pass transform=."
        )
    tolerance = TOLERANCE
    a, c, e, f = (stored.a, stored.c, stored.e, stored.f) if stored else (None, 0.0, None, 0.0)
    sheared = stored is not None and bool(stored.b or stored.d)
    # The coordinates that odc-geo writes for a sheared raster are pixel numbers; a crop keeps them.
    numbered = stored is not None and all(
        axis is not None and axis.attrs.get("units") in ("pixel", "pixels") for axis in (x, y)
    )
    if numbered:
        a, e = 1.0, 1.0

    def fit(coord: Any, name: str, step: float | None) -> Axis:
        factor = 1.0 if numbered else axis_units(name, coord.attrs, crs, coord.values)
        return fit_axis(coord.values, name, None if step is None else step / factor).scaled(factor)

    if x is not None:
        axis = fit(x, x_dim, a)
        a, c, tolerance = axis.step, axis.edge, max(tolerance, axis.tolerance)
    if y is not None:
        axis = fit(y, y_dim, e)
        e, f, tolerance = axis.step, axis.edge, max(tolerance, axis.tolerance)
    affine = read_affine((a, 0.0, c, 0.0, e, f), "The step of the coordinates")
    if stored is None:
        return affine
    if numbered:
        return stored @ affine
    if corner_distance(affine, stored, shape) <= tolerance:
        return affine if sheared else stored  # the same grid; the GeoTransform has exact numbers
    if sheared:
        raise GeoreferenceError(
            f"The GeoTransform is sheared (b = {stored.b}, d = {stored.d}), but the {x_dim} and {y_dim} "
            "coordinates describe a grid without shear. Drop the coordinates, or pass transform=."
        )
    return affine  # the raster was cropped or coarsened after the GeoTransform was written


def _affine_without_axes(
    obj: Raster, stored: Affine | None, x_dim: str, y_dim: str, shape: Size, crs: pyproj.CRS
) -> Affine:
    # rioxarray adds two-dimensional xc and yc to a sheared raster; after a crop only these are correct.
    centres = [obj.coords[name] for name in ("xc", "yc") if name in obj.coords]
    known = min(shape.xy) > 1 or stored is not None
    if len(centres) == 2 and known and all(set(c.dims) == {x_dim, y_dim} for c in centres):
        x, y = (c.transpose(y_dim, x_dim) for c in centres)
        units = (axis_units(str(x.name), x.attrs, crs), axis_units(str(y.name), y.attrs, crs))
        affine = affine_of_centres(x, y, units, stored)
        return affine if stored is None or corner_distance(affine, stored, shape) > TOLERANCE else stored
    if stored is None:
        why = curvilinear(obj, x_dim, y_dim)
        raise GeoreferenceError(
            f"The raster has neither {x_dim} and {y_dim} coordinates nor a GeoTransform"
            f"{f': {why}' if why else ''}. Add coordinates "
            "of the pixel centers, call ds.rio.write_transform(...), or pass transform=."
        )
    return stored


def _stored_affine(
    obj: Raster, x_dim: str, y_dim: str, needed: bool, bare: Mapping[str, int]
) -> Affine | None:
    """Return the affine in a GeoTransform or an attribute; `bare` are the sizes without coordinates.

    If the coordinates are sufficient (`needed` is false), attributes that are not an affine are ignored.
    """
    problem = None
    for attrs, key in _affine_attrs(obj, x_dim, y_dim):
        numbers = _numbers(attrs[key])
        try:
            if key == "spatial:transform":
                if attrs.get("spatial:transform_type", "affine") != "affine":
                    continue
                return _zarr_affine(attrs, {y_dim: bare.get(y_dim), x_dim: bare.get(x_dim)})
            if key != "GeoTransform":
                return read_affine(numbers or attrs[key], f"The attribute {key!r}")
            if len(numbers) != 6:
                raise GeoreferenceError(f"{key} must be six numbers; got {excerpt(attrs[key])}.")
            c, a, b, f, d, e = numbers
            return read_affine((a, b, c, d, e, f), key)
        except GeoreferenceError as error:
            if needed or key == "GeoTransform":
                problem = problem or error
    if problem is not None:
        raise problem
    return None


def _zarr_affine(attrs: Mapping[Any, Any], bare: Mapping[str, int | None]) -> Affine:
    """Return the affine from pixel corners of the Zarr convention "spatial".

    `bare` are the sizes of y and x if they have no coordinates, which would tell where selected pixels are.
    """
    value = attrs["spatial:transform"]
    affine = read_affine(_numbers(value) or value, "The attribute 'spatial:transform'")
    written = attrs.get("spatial:shape")
    if isinstance(written, list | tuple) and len(written) == 2:
        for (dim, size), before in zip(bare.items(), written, strict=True):
            if size not in (None, before):
                raise GeoreferenceError(
                    f"The attribute 'spatial:transform' is of a raster whose {dim} has length {before}, and "
                    f"this one has {size}: pixels were selected, and without coordinates it is unknown "
                    "which. Add x and y coordinates before you select, or pass transform=."
                )
    # "node": the transform maps the indices to the centers of pixels.
    is_node = attrs.get("spatial:registration") == "node"
    return affine @ Affine.translation(-0.5, -0.5) if is_node else affine


def _affine_attrs(obj: Raster, x_dim: str, y_dim: str) -> Iterator[tuple[Mapping[Any, Any], str]]:
    for name in grid_mappings(obj, x_dim, y_dim):
        attrs = variables(obj)[name].attrs
        if attrs.get("GeoTransform") not in (None, "", b""):
            yield attrs, "GeoTransform"
    for attrs in (obj.attrs, *(array.attrs for _, array in bare_variables(obj, x_dim, y_dim))):
        yield from ((attrs, key) for key in AFFINE_ATTRS if key in attrs)


def _numbers(value: Any) -> list[float]:
    """Parse numbers from a list, or from text such as the repr of an Affine; return [] if any is invalid."""
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, str):
        value = re.sub(r"[][(),;|]|^\s*Affine", " ", value).split()
    try:
        return [float(number) for number in value]
    except (TypeError, ValueError):
        return []


def read_affine(value: Any, source: str = "transform") -> Affine:
    """Parse an affine from ``[a, b, c, d, e, f]``, the order of rasterio and Earth Engine.

    Parameters
    ----------
    value : Affine or sequence of 6 or 9 numbers
        The affine.
    source : str
        Origin of the value, for error messages.

    Returns
    -------
    Affine

    Raises
    ------
    GeoreferenceError
        If the value is not six finite numbers, or not invertible.

    Examples
    --------
    >>> read_affine([30, 0, 500000, 0, -30, 60]) @ (1, 1)
    (500030.0, 30.0)
    """
    try:
        numbers = [float(number) for number in value]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) not in (6, 9) or not all(map(math.isfinite, numbers)):
        raise GeoreferenceError(f"{source} must be six finite numbers [a, b, c, d, e, f]; got {value!r}.")
    affine = Affine(*numbers[:6])
    if affine.is_degenerate:
        raise GeoreferenceError(f"{source} must be invertible; got {numbers[:6]}.")
    return affine
