"""Find the patches of a grid that are in polygons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from xee_tf.errors import GeoreferenceError, OptionError, shorten
from xee_tf.geometry import PatchGrid
from xee_tf.georef import GeoRef, polygons_in_pixels, read_crs

__all__ = ["PatchPolygons", "is_geometry"]

_KINDS = (
    "a GeoDataFrame or GeoSeries of polygons, or GeoJSON in longitude and latitude (a geometry, Feature or "
    "FeatureCollection)"
)


def is_geometry(value: Any) -> bool:
    """Return whether a value is GeoJSON, or an object with a geometry."""
    interface = value if isinstance(value, Mapping) else getattr(value, "__geo_interface__", None)
    return isinstance(interface, Mapping) and isinstance(interface.get("type"), str)


@dataclass(frozen=True, eq=False)
class PatchPolygons:
    """Polygons in pixels of a grid, and a value for each of them.

    Parameters
    ----------
    grid : PatchGrid
        The patches.
    shapes : ndarray of geometry
        The polygons, in pixels of the grid.
    values : ndarray of object
        The value of each polygon in the column that was asked for; otherwise None.
    """

    grid: PatchGrid
    shapes: NDArray[Any]
    values: NDArray[Any]

    @classmethod
    def of(cls, given: Any, grid: PatchGrid, name: str, column: str | None = None) -> PatchPolygons:
        """Read polygons, which may be in another CRS than the grid.

        Parameters
        ----------
        given : GeoDataFrame, GeoSeries or GeoJSON-like
            The polygons. GeoJSON without a "crs" member, and objects without a CRS, are in EPSG:4326.
        grid : PatchGrid
            The patches.
        name : str
            Name of the option, for error messages.
        column : str, optional
            Column, or property of GeoJSON, with the values of the polygons.
        """
        import shapely

        geometries, crs, table = _features(given, name)
        if column is not None and column not in table:
            raise OptionError(f"column={column!r} not found in {name}; available: {list(table)}.")
        kinds = shapely.get_type_id(geometries)
        polygons = [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON]
        wrong = np.flatnonzero(~np.isin(kinds, polygons) | shapely.is_empty(geometries))
        if wrong.size or not len(geometries):
            found = "no polygons" if not len(geometries) else f"in row {wrong[0]} {geometries[wrong[0]]!r}"
            raise OptionError(f"{name} must contain polygons only; got {shorten(found)}. Drop other rows.")
        if not np.isfinite(shapely.get_coordinates(geometries)).all():
            raise OptionError(f"{name} has a coordinate that is not a finite number: drop or correct it.")
        if grid.crs is None:
            raise GeoreferenceError("The grid has no CRS, so that polygons cannot be located in it.")
        if crs is None:
            raise GeoreferenceError(
                f"{name} has no CRS: set the CRS of its coordinates, for example {name}.set_crs('EPSG:4326')."
            )
        own = read_crs(crs, name, "Set another one with set_crs().")
        georef = GeoRef(pyproj.CRS(grid.crs), grid.affine, grid.shape)
        shapes = polygons_in_pixels(geometries, own, georef)
        values = np.array([None] * len(shapes), object) if column is None else table[column].to_numpy(object)
        return cls(grid, shapes, values)

    def centers(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs (patch, polygon) in which the center of the patch is in the polygon."""
        import shapely

        y, x = np.divmod(np.arange(len(self.grid)), self.grid.patches_per_row)
        points = shapely.points((x + 0.5) * self.grid.patch.x, (y + 0.5) * self.grid.patch.y)
        return self._pairs(points)

    def touched(self, *, halo: bool = False) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the pairs (patch, polygon) in which pixels of the patch are partly in the polygon.

        With `halo`, pixels of the margin count too.
        """
        import shapely

        grid = self.grid
        y, x = np.divmod(np.arange(len(grid)), grid.patches_per_row)
        margin = grid.margin.shape if halo else (0, 0)
        inner = 1e-6  # polygons that only touch the edge do not count
        boxes = shapely.box(
            x * grid.patch.x - margin[1] + inner,
            y * grid.patch.y - margin[0] + inner,
            (x + 1) * grid.patch.x + margin[1] - inner,
            (y + 1) * grid.patch.y + margin[0] - inner,
        )
        return self._pairs(boxes)

    def _pairs(self, geometries: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        import shapely

        patches, shapes = shapely.STRtree(self.shapes).query(geometries, predicate="intersects")
        return patches, shapes


def _features(given: Any, name: str) -> tuple[NDArray[Any], Any, pd.DataFrame]:
    """Return the geometries, their CRS, and their properties."""
    import shapely

    if isinstance(given, pd.DataFrame | pd.Series) and hasattr(given, "geometry"):
        table = pd.DataFrame(given) if isinstance(given, pd.DataFrame) else pd.DataFrame(index=given.index)
        return given.geometry.to_numpy(object), given.crs, table
    if not is_geometry(given):
        if not isinstance(given, Sequence) or isinstance(given, str) or not all(map(is_geometry, given)):
            raise OptionError(f"{name} must be {_KINDS}; got {shorten(repr(given))}.")
        given = {"type": "GeometryCollection", "geometries": list(given)}
    interface = given if isinstance(given, Mapping) else given.__geo_interface__
    geometries, properties = [], []
    for geometry, values in _parts(interface):
        try:
            geometries.append(shapely.geometry.shape(geometry))
        except Exception as error:  # shapely raises many types of exceptions
            raise OptionError(f"A geometry in {name} cannot be parsed: {error}.") from None
        properties.append(values)
    crs: Any = interface.get("crs", "EPSG:4326")
    if isinstance(crs, Mapping):
        crs = (crs.get("properties") or {}).get("name")
    array = np.empty(len(geometries), object)
    array[:] = geometries
    return array, crs, pd.DataFrame(properties, index=range(len(properties)))


def _parts(interface: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield the geometries of GeoJSON, each with its properties."""
    kind = interface.get("type")
    if kind == "FeatureCollection":
        for feature in interface.get("features") or ():
            yield from _parts(feature)
    elif kind == "Feature":
        if interface.get("geometry"):
            yield interface["geometry"], interface.get("properties") or {}
    elif kind == "GeometryCollection":
        for geometry in interface.get("geometries") or ():
            yield from _parts(geometry if isinstance(geometry, Mapping) else geometry.__geo_interface__)
    else:
        yield interface, {}
