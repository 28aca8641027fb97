"""Write the georeference of a raster in the Zarr conventions "proj" and "spatial", in addition to CF."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

import pyproj
import xarray as xr

from xee_tf.errors import OptionError
from xee_tf.georef.conventions import (
    PROJ_UUID,
    SPATIAL_UUID,
    bare_variables,
    without_zarr_conventions,
)
from xee_tf.georef.crs import crs_text
from xee_tf.georef.reference import GeoRef
from xee_tf.options import one_of

__all__ = ["Conventions", "add_conventions", "check_conventions"]

Conventions = Literal["cf", "cf+zarr"]
"""The conventions in which the georeference of a Zarr store is written."""


def _declare(name: str, uuid: str, description: str) -> dict[str, str]:
    # Version 0.1 is the first that was published, and its names have no colon. rioxarray up to 0.23 looks for
    # the names of the drafts, "proj:" and "spatial:", and reads CF here.
    repository = f"zarr-conventions/{name}"
    return {
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/{repository}/refs/tags/v0.1/schema.json",
        "spec_url": f"https://github.com/{repository}/blob/v0.1/README.md",
        "name": name,
        "description": description,
    }


_DECLARED = (
    _declare("proj", PROJ_UUID, "Coordinate reference system information for geospatial data"),
    _declare("spatial", SPATIAL_UUID, "Spatial coordinate information"),
)


def check_conventions(given: Conventions, *, zarr: bool = True) -> None:
    """Check the option `conventions`; `zarr` says whether a Zarr store is written.

    Raises
    ------
    OptionError
        If it is not one of the choices, or requests conventions of Zarr in another format.
    """
    one_of("conventions", given, get_args(Conventions))
    if given != "cf" and not zarr:
        raise OptionError(
            f"conventions={given!r} is for Zarr stores; a GeoTIFF has tags of its own. Omit it, or write a "
            ".zarr."
        )


def add_conventions(dataset: xr.Dataset, georef: GeoRef, conventions: Conventions) -> xr.Dataset:
    """Add the attributes of the conventions to a Dataset with a georeference in CF; nothing is computed.

    Parameters
    ----------
    dataset : Dataset
        The raster.
    georef : GeoRef
        Its georeference.
    conventions : {"cf", "cf+zarr"}
        With "cf", the Dataset is returned as it is.

    Returns
    -------
    Dataset
        With "cf+zarr", a copy with the attributes ``proj:`` and ``spatial:`` of the group, and of every
        raster variable, so that it can be opened alone.

    Examples
    --------
    >>> from affine import Affine
    >>> from xee_tf.geometry import Size
    >>> georef = GeoRef(pyproj.CRS("EPSG:32633"), Affine(30, 0, 500000, 0, -30, 60), Size(x=3, y=2))
    >>> image = xr.Dataset({"B4": (("y", "x"), [[1, 2, 3], [4, 5, 6]])})
    >>> found = add_conventions(image, georef, "cf+zarr")
    >>> found.B4.attrs["proj:code"], found.B4.attrs["spatial:transform"], found.attrs["spatial:bbox"]
    ('EPSG:32633', [30.0, 0.0, 500000.0, 0.0, -30.0, 60.0], [500000.0, 0.0, 500090.0, 60.0])
    """
    if conventions == "cf":
        return dataset
    attrs = {
        **_crs_attrs(georef.crs),
        "spatial:dimensions": [georef.y_dim, georef.x_dim],
        "spatial:transform": [float(number) for number in tuple(georef.affine)[:6]],
        "spatial:shape": [georef.shape.y, georef.shape.x],
        "spatial:registration": "pixel",
    }
    result = dataset.copy(deep=False)
    for _, band in bare_variables(result, georef.x_dim, georef.y_dim):
        band.attrs = _with(band.attrs, attrs)
    # The bounding box of an array follows from its transform; that of the group tells what it covers.
    result.attrs = _with(result.attrs, {**attrs, "spatial:bbox": [float(edge) for edge in georef.bounds]})
    return result


def _crs_attrs(crs: pyproj.CRS) -> dict[str, str]:
    """Return the code of a CRS if others know it, else WKT; codes such as SR-ORG:6974 are not in PROJ."""
    text = crs_text(crs)
    is_code = text.count(":") == 1 and not text.startswith("SR-ORG:")
    return {"proj:code": text} if is_code else {"proj:wkt2": str(crs.to_wkt())}


def _with(before: Mapping[Any, Any], added: Mapping[str, Any]) -> dict[Any, Any]:
    """Return attributes with those of the conventions; declarations of other conventions are kept."""
    kept = without_zarr_conventions(before)
    return {**kept, "zarr_conventions": [*kept.get("zarr_conventions", ()), *_DECLARED], **added}
