"""The classes that hold options, and the signatures that show them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from typing import Any, ClassVar, TypedDict

import pytest

import xee_tf
from xee_tf.errors import OptionError
from xee_tf.export.options import ExportKeywords, ExportOptions, ExportSource
from xee_tf.geometry import Size
from xee_tf.models.hosted import HostedKeywords, HostedOptions
from xee_tf.models.options import ModelKeywords
from xee_tf.models.spec import ModelSpec
from xee_tf.options import Options, Spelling, choice, flag, option, parse, spelled
from xee_tf.predict.options import PredictKeywords, PredictOptions


class Keywords(TypedDict, total=False):
    tile: int | tuple[int, int]
    edge: str
    lazy: bool
    crs: Any


@dataclass(frozen=True, kw_only=True)
class Tiling(Options):
    _keywords: ClassVar[type] = Keywords

    tile: Size = option(256, Size.from_xy)
    edge: str = option("drop", choice("drop", "pad"))
    lazy: bool | None = option(None, flag)
    crs: Any = None


@dataclass(frozen=True, kw_only=True)
class Lenient(Tiling):
    _none_is_default: ClassVar[bool] = True


def test_values_are_checked_and_converted() -> None:
    assert Tiling().tile == Tiling(tile=Size(x=256, y=256)).tile == Size(x=256, y=256)
    assert replace(Tiling(tile=(8, 4)), edge="pad") == Tiling(tile=(8, 4), edge="pad")
    assert Tiling().lazy is None
    for options, words in (
        ({"tile": 0}, "tile must be at least 1"),
        ({"tile": None}, "tile must be one whole number"),
        ({"edge": "wrap"}, "edge must be 'drop' or 'pad'; got 'wrap'"),
        ({"lazy": "yes"}, "lazy must be True or False; got 'yes'"),
    ):
        with pytest.raises(OptionError, match=words):
            parse(Tiling, options)
    with pytest.raises(FrozenInstanceError):
        Tiling().edge = "pad"  # type: ignore[misc]


def test_none_is_a_default_where_a_class_has_it_so() -> None:
    assert Lenient(tile=None, edge=None, crs=None) == Lenient()  # type: ignore[arg-type]
    assert Lenient(lazy=False).lazy is False


def test_a_class_takes_its_own_options() -> None:
    assert parse(Tiling, {"edge": "pad", "progress": True}) == Tiling(edge="pad")


def test_a_function_takes_options_in_every_spelling_and_shows_them() -> None:
    @spelled(Spelling("tiling options", aliases={"projection": "crs"}), Tiling)
    def cut(image: str, *, progress: bool = False, **options: Any) -> Any:
        return image, progress, options

    assert cut("scene", Tile=4, projection="EPSG:4326", progress=True) == (
        "scene",
        True,
        {"tile": 4, "crs": "EPSG:4326"},
    )
    with pytest.raises(OptionError, match=r"Unknown tiling options: {'tiles': 4}.*mean 'tile'"):
        cut("scene", tiles=4)
    shown = inspect.signature(cut)
    assert list(shown.parameters) == ["image", "tile", "edge", "lazy", "crs", "progress"]
    assert shown.parameters["tile"].default == 256
    assert shown.parameters["tile"].annotation == "int | tuple[int, int]"


PUBLIC: list[tuple[Callable[..., Any], type, tuple[type, ...]]] = [
    (xee_tf.export_image, ExportKeywords, (ExportOptions, ExportSource)),
    (xee_tf.plan_export, ExportKeywords, (ExportOptions, ExportSource)),
    (xee_tf.TFExportAccessor.__call__, ExportKeywords, (ExportOptions, ExportSource)),
    (xee_tf.TFExportAccessor.plan, ExportKeywords, (ExportOptions, ExportSource)),
    (xee_tf.Model, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_connector, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_function, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_keras, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_saved_model, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_tf_serving, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.from_vertex_ai, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.from_ai_platform_predictor, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.predict_image, PredictKeywords, (PredictOptions,)),
    (xee_tf.predict_to_zarr, PredictKeywords, (PredictOptions,)),
]


@pytest.mark.parametrize(("function", "keywords", "classes"), PUBLIC)
def test_every_option_is_shown_with_its_default(
    function: Callable[..., Any], keywords: type, classes: tuple[type, ...]
) -> None:
    shown = inspect.signature(function).parameters
    assert all(each.kind is not each.VAR_KEYWORD for each in shown.values())
    known = {
        name: each.default
        for kind in classes
        for name, each in inspect.signature(kind).parameters.items()
        if each.kind is each.KEYWORD_ONLY
    }
    # What type checkers know is what is checked.
    assert set(keywords.__annotations__) == set(known)
    for name, default in known.items():
        assert shown[name].default is default or shown[name].default == default
        assert "Size" not in str(shown[name].annotation)
