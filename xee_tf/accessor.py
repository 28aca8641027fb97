"""``ds.tfexport(...)``: the export functions as an accessor. Thin, and without state of its own."""

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


def _of_image(
    function: Callable[Concatenate[Any, P], R], spelling: Spelling
) -> Callable[Concatenate[TFExportAccessor, P], R]:
    """A function of an image as a method of the accessor, with its signature and help."""

    @functools.wraps(function)
    def method(self: TFExportAccessor, /, *args: P.args, **options: P.kwargs) -> R:
        return function(self._obj, *args, **options)

    first = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    _, *parameters = inspect.signature(function).parameters.values()
    show_signature(method, inspect.Signature([first, *parameters]))
    replaced = {**spelling.replaced, "image": "it is the raster in front of .tfexport; leave it out"}
    return spelled(replace(spelling, replaced=replaced))(method)


@xr.register_dataset_accessor("tfexport")
@xr.register_dataarray_accessor("tfexport")
class TFExportAccessor:
    """Export this raster as TFRecord patches: ``ds.tfexport("out/scene", patch_dimensions=256)``.

    Call it to export; ``.plan(...)`` shows what the same call would write and cost; ``.table(...)`` samples
    the raster at points or inside polygons. See `xee_tf.export_image`, `xee_tf.plan_export` and
    `xee_tf.sample_table`.
    """

    def __init__(self, obj: xr.Dataset | xr.DataArray) -> None:
        self._obj = obj

    __call__ = _of_image(export_image, IMAGE_SPELLING)
    plan = _of_image(plan_export, IMAGE_SPELLING)
    table = _of_image(sample_table, SAMPLE_SPELLING)

    def __repr__(self) -> str:
        return (
            "<tfexport: call it to export this raster as TFRecord patches with a mixer, "
            "or .plan(...) to see what that would write, or .table(points, ...) to sample it>"
        )
