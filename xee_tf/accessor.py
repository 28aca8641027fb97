"""``ds.tfexport(...)``: the export functions as an accessor. Thin, and without state of its own."""

from __future__ import annotations

import inspect
from typing import Any

import xarray as xr
from dask.delayed import Delayed

from xee_tf.export.image import export_image, plan_export
from xee_tf.export.plan import ExportPlan
from xee_tf.export.result import ExportResult
from xee_tf.storage import PathLike
from xee_tf.tables.export import TableResult
from xee_tf.tables.sample import sample_table

__all__ = ["TFExportAccessor"]


@xr.register_dataset_accessor("tfexport")
@xr.register_dataarray_accessor("tfexport")
class TFExportAccessor:
    """Export this raster as TFRecord patches: ``ds.tfexport("out/scene", patch_dimensions=256)``."""

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    def __call__(self, path: PathLike, **options: Any) -> ExportResult | dict[str, ExportResult] | Delayed:
        """Export; see `xee_tf.export_image`."""
        return export_image(self._obj, path, **options)

    def plan(self, path: PathLike | None = None, **options: Any) -> ExportPlan:
        """What the same call would write and cost; see `xee_tf.plan_export`."""
        return plan_export(self._obj, path, **options)

    def table(self, where: Any, path: PathLike, **options: Any) -> TableResult | Delayed:
        """Sample this raster at points or inside polygons, to a table; see `xee_tf.sample_table`."""
        return sample_table(self._obj, where, path, **options)

    def __repr__(self) -> str:
        return (
            "<tfexport: call it to export this raster as TFRecord patches with a mixer, "
            "or .plan(...) to see what that would write, or .table(points, ...) to sample it>"
        )


def _show_options(method: Any, *, optional_path: bool = False) -> None:
    """Give a method the signature and help of `export_image`, so that a notebook completes them."""
    parameters = list(inspect.signature(export_image).parameters.values())
    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    path = parameters[1].replace(default=None) if optional_path else parameters[1]
    method.__signature__ = inspect.Signature([first, path, *parameters[2:]])


_show_options(TFExportAccessor.__call__)
_show_options(TFExportAccessor.plan, optional_path=True)
TFExportAccessor.__call__.__doc__ = export_image.__doc__
