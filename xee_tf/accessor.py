"""The ``tfexport`` accessor: the export functions as methods of an xarray object."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Concatenate, ParamSpec, TypeVar

import xarray as xr

from xee_tf.export import IMAGE_SPELLING, export_image, plan_export
from xee_tf.options import Spelling, show_signature, spelled
from xee_tf.tables import SAMPLE_SPELLING, sample_table

__all__ = ["TFExportAccessor"]


P = ParamSpec("P")
R = TypeVar("R")


def _as_method(
    function: Callable[Concatenate[Any, P], R], spelling: Spelling
) -> Callable[Concatenate[TFExportAccessor, P], R]:
    """Convert a function of an image to a method of the accessor, with the function's signature and help."""

    @functools.wraps(function)
    def method(self: TFExportAccessor, /, *args: P.args, **options: P.kwargs) -> R:
        return function(self._obj, *args, **options)

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _, *parameters = inspect.signature(function).parameters.values()
    show_signature(method, inspect.Signature([first, *parameters]))
    # Decorated again, because `function` would report an `image` keyword as given twice.
    replaced = {**spelling.replaced, "image": "it is the object before .tfexport; omit it"}
    return spelled(replace(spelling, replaced=replaced))(method)


@xr.register_dataset_accessor("tfexport")
@xr.register_dataarray_accessor("tfexport")
class TFExportAccessor:
    """Export a raster as TFRecord patches, plan the export, or sample the raster as a table.

    Calling the accessor is the same as `xee_tf.export_image` of the object. The methods ``plan`` and
    ``table`` are the same as `xee_tf.plan_export` and `xee_tf.sample_table`.

    Parameters
    ----------
    obj : Dataset or DataArray
        The raster; xarray passes it.

    Examples
    --------
    >>> import numpy as np, tempfile, xarray as xr, xee_tf
    >>> ds = xr.Dataset({"B4": (("y", "x"), np.ones((300, 300), "float32"))},
    ...                 coords={"y": 5e6 - 30 * np.arange(300.0), "x": 7e5 + 30 * np.arange(300.0)},
    ...                 attrs={"crs": "EPSG:32633"})
    >>> ds.tfexport.plan(patch_dimensions=128).records
    4
    >>> ds.tfexport(f"{tempfile.mkdtemp()}/scene", patch_dimensions=128).records
    4
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    __call__ = _as_method(export_image, IMAGE_SPELLING)
    plan = _as_method(plan_export, IMAGE_SPELLING)
    table = _as_method(sample_table, SAMPLE_SPELLING)

    def __repr__(self) -> str:
        return (
            "<tfexport: call it to export this raster as TFRecord patches with a mixer, "
            "use .plan(...) to see what that would write, or .table(points, ...) to sample pixels or patches>"
        )
