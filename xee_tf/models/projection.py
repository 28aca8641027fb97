"""The projection of the pixels that a model takes: a CRS with a grid."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyproj
from affine import Affine

from xee_tf.display import quoted
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.georef import crs_text, read_affine, read_crs
from xee_tf.models.earth_engine import function_call

__all__ = ["Projection"]

_FORMS = (
    "Use ('EPSG:32633', 30) for pixels of 30 meters, {'crs': 'EPSG:32633', 'transform': [30, 0, 300000, 0, "
    "-30, 5000000]} for an exact grid, or a GeoBox of odc-geo."
)
# On the equator of WGS 84, as Earth Engine converts scales to degrees (real mixers).
_METRES_PER_DEGREE = 111319.49079327357


@dataclass(frozen=True)
class Projection:
    """A CRS and the grid of pixels in it, like an ``ee.Projection``.

    Parameters
    ----------
    crs : str
        The code of an authority, or WKT.
    transform : tuple of float
        Six numbers that transform (column, row) to coordinates, in Earth Engine's order:
        ``(x scale, x shear, x of the corner, y shear, y scale, y of the corner)``.

    Examples
    --------
    >>> Projection.of(("EPSG:32633", 30))
    Projection(crs='EPSG:32633', transform=(30.0, 0.0, 0.0, 0.0, -30.0, 0.0))
    """

    crs: str
    transform: tuple[float, float, float, float, float, float]

    @property
    def affine(self) -> Affine:
        """The transform as an ``affine.Affine``."""
        return Affine(*self.transform)

    @classmethod
    def of(cls, value: Any, name: str = "proj") -> Projection:
        """Parse a projection as users pass it.

        Parameters
        ----------
        value : tuple, mapping, GeoBox, ee.Projection or Projection
            ``(crs, scale)`` or ``(crs, transform)``; a mapping as returned by ``ee.Projection.getInfo``
            (``crs`` or ``wkt``, and ``transform``), or one with ``scale``. A scale is in meters, as in Earth
            Engine: for a geographic CRS it is converted to degrees on the equator.
        name : str, default "proj"
            The name of the option, for errors.

        Returns
        -------
        Projection
            The projection.

        Raises
        ------
        OptionError
            If `value` does not have a scale, or is not a projection.
        GeoreferenceError
            If the CRS cannot be parsed.
        """
        if isinstance(value, cls):
            return value
        crs, scale, transform = _parts(value, name)
        known = read_crs(crs, name, _FORMS)
        if transform is not None:
            try:
                return cls(crs_text(known), read_affine(transform)[:6])
            except GeoreferenceError:
                raise OptionError(
                    f"The transform of {name} must be six numbers [x scale, x shear, x, y shear, y scale, y] "
                    f"with pixels of non-zero size; got {transform!r}."
                ) from None
        if scale is None:
            raise OptionError(
                f"{name} has no scale: {value!r} is a CRS without the size of its pixels. {_FORMS}"
            )
        try:
            metres = float(scale)
        except (TypeError, ValueError):
            metres = math.nan
        if not (math.isfinite(metres) and metres > 0):
            raise OptionError(f"The scale of {name} must be a positive number of meters; got {scale!r}.")
        side = metres / _metres_per_unit(known)
        return cls(crs_text(known), (side, 0.0, 0.0, 0.0, -side, 0.0))


def _parts(value: Any, name: str) -> tuple[Any, Any, Any]:
    """Return the CRS, scale and transform of a projection as users pass it."""
    value = _of_earth_engine(value, name)
    if isinstance(value, Mapping):
        known = {"type", "crs", "wkt", "crs_wkt", "transform", "scale", "crsTransform"}
        if unknown := set(value) - known:
            raise OptionError(
                f"{name} has unknown fields {quoted(sorted(unknown))}; expected {quoted(sorted(known))}. "
                f"{_FORMS}"
            )
        crs = value.get("crs") or value.get("wkt") or value.get("crs_wkt")
        if crs is None:
            raise OptionError(f"{name} has no CRS: {dict(value)!r}. {_FORMS}")
        return crs, value.get("scale"), value.get("transform", value.get("crsTransform"))
    if isinstance(value, str | int | pyproj.CRS) or hasattr(value, "to_wkt"):
        return value, None, None
    affine = getattr(value, "affine", getattr(value, "transform", None))
    if hasattr(value, "crs") and affine is not None:
        return value.crs, None, affine
    if isinstance(value, tuple | list) and len(value) == 2:
        crs, grid = value
        return (crs, None, grid) if hasattr(grid, "__len__") else (crs, grid, None)
    raise OptionError(f"{name} must be a CRS with a grid; got {value!r}. {_FORMS}")


def _of_earth_engine(value: Any, name: str) -> Any:
    """Return the arguments of an ``ee.Projection``: a CRS, with a transform or ``atScale``."""
    if type(value).__module__ != "ee.projection":
        return value
    found = function_call(value)
    scale = None
    if found is not None and found[0] == "Projection.atScale":
        scale, found = found[1].get("meters"), found[1].get("projection")
    if isinstance(found, tuple) and found[0] == "Projection":
        # Only Earth Engine can compute a projection with both a transform and a scale.
        grid = {"transform": found[1].get("transform"), "scale": scale}
        parts = {key: part for key, part in {"crs": found[1].get("crs"), **grid}.items() if part is not None}
        if isinstance(parts.get("crs"), str) and not {"transform", "scale"} <= set(parts):
            return parts
    raise OptionError(
        f"{name} is an ee.Projection that only Earth Engine can evaluate: pass proj.getInfo(), a CRS and "
        "a transform."
    )


def _metres_per_unit(crs: pyproj.CRS) -> float:
    if crs.is_geographic:
        return _METRES_PER_DEGREE
    if not crs.axis_info:
        raise GeoreferenceError(
            f"The CRS {crs.name!r} has no unit, so a scale in meters cannot be converted. {_FORMS}"
        )
    return float(crs.axis_info[0].unit_conversion_factor)
