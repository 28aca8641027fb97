"""Tests of option classes and of the signatures that show options."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
import pandas as pd
import pytest

import xee_tf
from tests.rasters import raster
from xee_tf.errors import OptionError
from xee_tf.export.options import ExportKeywords, ExportOptions, ExportSource
from xee_tf.geometry import Size
from xee_tf.identity import IdentityOptions
from xee_tf.models.hosted import HostedKeywords, HostedOptions
from xee_tf.models.options import ModelKeywords
from xee_tf.models.spec import ModelSpec
from xee_tf.options import Options, Spelling, choice, flag, option, parse, read_names, spelled
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
    for options, message in (
        ({"tile": 0}, "tile must be at least 1"),
        ({"tile": None}, "tile must be an integer or a pair of integers"),
        ({"edge": "wrap"}, "edge must be 'drop' or 'pad'; got 'wrap'"),
        ({"lazy": "yes"}, "lazy must be True or False; got 'yes'"),
    ):
        with pytest.raises(OptionError, match=message):
            parse(Tiling, options)
    with pytest.raises(FrozenInstanceError):
        Tiling().edge = "pad"  # type: ignore[misc]


def test_none_means_default_if_class_permits() -> None:
    assert Lenient(tile=None, edge=None, crs=None) == Lenient()  # type: ignore[arg-type]
    assert Lenient(lazy=False).lazy is False


def test_parse_ignores_other_options() -> None:
    assert parse(Tiling, {"edge": "pad", "progress": True}) == Tiling(edge="pad")


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ("B4", ("B4",)),
        (("B4", "B3"), ("B4", "B3")),
        (np.array(["B4", "B3"]), ("B4", "B3")),
        (pd.Index(["B4", "B3"]), ("B4", "B3")),
        ({"B4": 1, "B3": 2}.keys(), ("B4", "B3")),
        ((name for name in "ab"), ("a", "b")),
    ],
)
def test_names_are_read_in_order(value: Any, names: tuple[str, ...]) -> None:
    found = read_names(value, "bands")
    assert found == names
    assert {type(name) for name in found} == {str}


INVALID_NAMES = [
    *(5, True, 1.5, object, b"B4", bytearray(b"B4"), memoryview(b"B4"), np.array("B4")),
    *({"B4", "B3"}, frozenset(["B4"]), {"B4": 1}, [4], ["B4", 3], ["B4", None], [["B4"]], [b"B4"]),
    *([], (), "", ["B4", ""], ["B4", "B3", "B4"]),
]


@pytest.mark.parametrize("value", INVALID_NAMES, ids=range(len(INVALID_NAMES)))
def test_names_that_are_not_a_list_of_different_names_raise(value: Any) -> None:
    with pytest.raises(OptionError, match=r"^columns (must be a list of names, such as|is empty|contains)"):
        read_names(value, "columns")


def test_names_may_be_omitted_where_the_option_permits() -> None:
    assert read_names([], "columns", allow_empty=True) == ()
    with pytest.raises(OptionError, match=r"^columns is empty: .*, such as \['a', 'b'\]\.$"):
        read_names([], "columns", ["a", "b"])


@pytest.mark.parametrize("value", [b"a", {"B4": 1}, {"B4"}, ["B4", "B4"], [4], [""]], ids=repr)
def test_all_options_of_names_are_checked(value: Any, tmp_path: Path) -> None:
    """The error begins with the name of the option, and nothing is written."""
    pytest.importorskip("pyarrow")
    pytest.importorskip("geopandas")
    scene = raster({"B4": np.zeros((8, 8), "f4")})
    patches = scene.tfexport(tmp_path / "scene", patch_dimensions=4)
    sites = pd.DataFrame({"B4": [1.0], "longitude": [13.5], "latitude": [45.0]})
    table = xee_tf.export_table(sites, tmp_path / "sites").path
    before = sorted(tmp_path.iterdir())
    calls: dict[str, list[Callable[..., Any]]] = {
        "bands": [
            partial(xee_tf.open_image, patches),
            partial(xee_tf.upload_image, None, patches, tmp_path / "scene.tif"),
            partial(xee_tf.PredictionWriter, tmp_path / "p.tfrecord", patches),
            partial(xee_tf.Model.from_function, np.sum),
        ],
        "columns": [
            partial(xee_tf.open_table, table),
            partial(xee_tf.export_table, sites, tmp_path / "t"),
            partial(xee_tf.sample_table, scene, None, tmp_path / "t", n=1, seed=0),
            partial(xee_tf.upload_table, table, tmp_path / "t.gpkg"),
        ],
        "properties": [partial(xee_tf.sample_table, scene, None, tmp_path / "t", n=1, seed=0)],
        **{
            name: [partial(xee_tf.Model.from_function, np.sum)]
            for name in ("input_properties", "array_dims", "output_bands", "output_properties")
            if not (isinstance(value, dict) and name.startswith("output"))
        },
    }
    for name, functions in calls.items():
        for call in functions:
            with pytest.raises(OptionError, match=rf"^{name} (must be a list of names|contains)"):
                call(**{name: value})
    assert sorted(tmp_path.iterdir()) == before


def test_spelled_function() -> None:
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
    (xee_tf.export_image, ExportKeywords, (ExportOptions, ExportSource, IdentityOptions)),
    (xee_tf.plan_export, ExportKeywords, (ExportOptions, ExportSource, IdentityOptions)),
    (xee_tf.TFExportAccessor.__call__, ExportKeywords, (ExportOptions, ExportSource, IdentityOptions)),
    (xee_tf.TFExportAccessor.plan, ExportKeywords, (ExportOptions, ExportSource, IdentityOptions)),
    (xee_tf.Model, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_connector, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_function, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_keras, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_mlm, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_onnx, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_saved_model, ModelKeywords, (ModelSpec,)),
    (xee_tf.Model.from_tf_serving, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.from_vertex_ai, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.from_ai_platform_predictor, HostedKeywords, (ModelSpec, HostedOptions)),
    (xee_tf.Model.predict_image, PredictKeywords, (PredictOptions,)),
    (xee_tf.predict_to_zarr, PredictKeywords, (PredictOptions,)),
    (xee_tf.predict_to_cog, PredictKeywords, (PredictOptions,)),
]


@pytest.mark.parametrize(("function", "keywords", "classes"), PUBLIC)
def test_signatures_show_all_options(
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
    # Type checkers and the checks at run time have the same options.
    assert set(keywords.__annotations__) == set(known)
    for name, default in known.items():
        assert shown[name].default is default or shown[name].default == default
        assert "Size" not in str(shown[name].annotation)


SCENE = raster({"B4": np.ones((8, 8), "float32")})
SITES = pd.DataFrame({"B4": [0.5]})


def index(**options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_function(len, output_bands=["p"], **{"input_tile_size": 4, **options})


def served(**options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_tf_serving("http://m:8501", "m", **options)


CALLS: dict[str, Callable[..., Any]] = {
    "export": lambda at, **given: xee_tf.export_image(SCENE, at / "new", **{"patch_dimensions": 4, **given}),
    "plan": lambda at, **given: xee_tf.plan_export(SCENE, at / "new", **given),
    "table": lambda at, **given: xee_tf.export_table(SITES, at / "new", geometry=None, **given),
    "sample": lambda at, **given: xee_tf.sample_table(SCENE, None, at / "new", **given),
    "open": lambda at, **given: xee_tf.open_image(at / "old-mixer.json", **given),
    "rows": lambda at, **given: xee_tf.open_table(at / "old.tfrecord.gz", **given),
    "verify": lambda at, **given: xee_tf.verify(at / "old-mixer.json", **given),
    "training": lambda at, **given: xee_tf.tf_dataset(at / "old-mixer.json", inputs="B4", **given),
    "upload": lambda at, **given: xee_tf.upload_image(None, at / "old-mixer.json", at / "new.tif", **given),
    "upload table": lambda at, **given: xee_tf.upload_table(
        at / "old.tfrecord.gz", at / "new.parquet", **given
    ),
    "writer": lambda at, **given: xee_tf.PredictionWriter(at / "new", at / "old-mixer.json", **given),
    "zarr": lambda at, **given: xee_tf.predict_to_zarr(index(), SCENE, at / "new.zarr", **given),
    "predict": lambda at, **given: index().predict_image(SCENE, **given),
    "properties": lambda at, **given: index(output_properties=["p"]).predict_properties(SITES, **given),
    "prepare": lambda at, **given: xee_tf.prepare_model(at, at / "new", **given),
    "serve": lambda at, **given: xee_tf.serve(at, **given),
    "model": lambda at, **given: index(**given),
    "served": lambda at, **given: served(**given),
}
FLAGS = {
    "export": "compressed sequence_data collapse_bands drop_masked_steps index progress compute",
    "table": "progress compute",
    "sample": "progress compute drop_nulls all_touched",
    "open": "verify",
    "rows": "verify",
    "training": "drop_remainder",
    "upload": "progress",
    "writer": "compressed",
    "zarr": "resume progress skip_masked",
    "predict": "merge skip_masked",
    "prepare": "verify",
    "model": "named fix_input_proj overlap_is_total",
    "served": "b64 numbers_as_strings",
}
NUMBERS = {
    "export": "max_file_size masked_threshold patch_dimensions kernel_size default_value",
    "sample": "n seed",
    "open": "chunks kernel_size default_value",
    "rows": "chunks",
    "training": "batch_size shuffle repeat seed num_parallel_reads patch_dimensions kernel_size",
    "upload": "nodata kernel_size",
    "predict": "batch_size",
    "properties": "batch_size",
    "serve": "port grpc_port max_request_bytes max_concurrency max_batch_size grace",
    "model": "input_tile_size input_overlap_size output_tile_size output_multiplier",
    "served": "version timeout deadline max_concurrency max_payload_bytes max_response_bytes",
}
STORED = "export table sample open rows training upload writer zarr prepare verify"
WRONG_NUMBERS = (True, "x", -5.5)
WRONG: list[tuple[str, str, Any]] = [
    *((call, name, value) for call, names in FLAGS.items() for name in names.split() for value in ("no", 2)),
    *((call, name, v) for call, names in NUMBERS.items() for name in names.split() for v in WRONG_NUMBERS),
    *((call, "storage_options", 3) for call in STORED.split()),
    *((call, "if_exists", "maybe") for call in ("export", "table", "sample", "upload", "writer", "zarr")),
    *(("upload", "dtype", value) for value in ("x", 3, "complex64")),
    *(("open", "chunks", value) for value in (0, {"y": 0}, (1, 2, 3))),
    *(("export", name, None) for name in ("compute", "progress", "index", "compressed")),
    *(("table", name, None) for name in ("compute", "progress")),
    ("export", "max_file_size", 1.7),
    ("training", "target_dtype", "x"),
    ("sample", "n", {1: 2.5}),
    ("served", "timeout", float("inf")),
    ("predict", "blend", 3),
]
RIGHT: list[Any] = [("default_value", -5.5), ("nodata", -5.5), ("shuffle", True), ("repeat", True)]
WRONG = [case for case in WRONG if case[1:] not in RIGHT]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options")
    xee_tf.export_image(SCENE, folder / "old", patch_dimensions=4)
    xee_tf.export_table(SITES, folder / "old", geometry=None)
    return folder


@pytest.mark.parametrize(("call", "name", "value"), WRONG)
def test_options_with_wrong_type(written: Path, call: str, name: str, value: Any) -> None:
    if call in ("training", "prepare"):
        pytest.importorskip("tensorflow")
    before = set(written.iterdir())
    with pytest.raises(OptionError, match=name):
        CALLS[call](written, **{name: value})
    assert set(written.iterdir()) == before


def test_numbers_of_any_type() -> None:
    plan = xee_tf.plan_export(SCENE, max_file_size=1e9, compressed=np.bool_(False), patch_dimensions=4)
    assert (plan.options.max_file_size, plan.options.compressed) == (10**9, False)
    pytest.importorskip("requests")
    pytest.importorskip("orjson")
    eight = np.int64(8)
    flow: Any = served(max_concurrency=eight, timeout=np.float32(2), version=eight).connector
    assert (flow.flow.max_concurrency, flow.flow.timeout) == (8, 2.0)
    assert type(flow.flow.max_concurrency) is int
