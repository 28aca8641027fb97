"""Models that STAC items describe with the extension MLM."""

from __future__ import annotations

import copy
import functools
import json
import operator
from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from tests.hostile import VALUES, paths
from tests.onnx_models import convolution, identity, model, node
from tests.rasters import random_band, raster
from xee_tf import MissingModelError, Model, ModelError, OptionError, XeeTFError, predict_to_zarr
from xee_tf.cli.loading import model_at
from xee_tf.models.keras import KerasConnector
from xee_tf.models.onnx import OnnxConnector
from xee_tf.models.saved_model import SavedModelConnector

WEIGHTS = np.random.default_rng(1).integers(-3, 4, (2, 3, 1, 1)).astype("float32")
SCENE = raster({name: random_band((21, 17), seed=seed) for seed, name in enumerate(("B4", "B3", "B2"))})
AXES = ["batch", "channel", "height", "width"]


def described(
    shape: Any = (-1, 3, 8, 8),
    dims: Any = AXES,
    bands: Any = ("B4", "B3", "B2"),
    href: str = "m.onnx",
    **fields: Any,
) -> dict[str, Any]:
    """An item with one input and one output of two classes; `fields` are added to the input."""
    classes = [{"value": 1, "name": "water"}, {"value": 0, "name": "forest"}]
    array = {"shape": list(shape), "dim_order": list(dims), "data_type": "float32"}
    result = {"shape": [-1, 2, 8, 8], "dim_order": AXES, "data_type": "float32"}
    return {
        "type": "Feature",
        "id": "cover",
        "properties": {
            "mlm:name": "cover",
            "mlm:input": [{"name": "x", "bands": list(bands), "input": array, **fields}],
            "mlm:output": [{"name": "y", "tasks": [], "result": result, "classification:classes": classes}],
        },
        "assets": {
            "model": {"href": href, "roles": ["mlm:model"]},
            "code": {"href": "https://code.test", "roles": ["mlm:source_code"]},
        },
        "links": [],
    }


def output(**result: Any) -> dict[str, Any]:
    item = described()
    item["properties"]["mlm:output"][0]["result"] = result
    return item


def saved(folder: Path, item: dict[str, Any]) -> Path:
    path = folder / "item.json"
    path.write_text(json.dumps(item))
    return path


class Item:
    """An object like those of pystac."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content

    def to_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.content)


@pytest.mark.parametrize("scaling", [None, "each", "one"])
def test_predictions_are_those_of_numpy(scaling: str | None, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(convolution(WEIGHTS, ("n", 3, "h", "w"), pad=0))
    kinds = [
        {"type": "z-score", "mean": 3, "stddev": 4},
        {"type": "min-max", "minimum": 2, "maximum": 10},
        {"type": None},
    ]
    one = {"type": "scale", "value": 8}
    item = described(value_scaling={"each": kinds, "one": [one]}.get(scaling or ""))
    found = Model.from_mlm(saved(tmp_path, item), input_overlap_size=1)
    assert found.input_tile_size.xy == (6, 6)
    bands = np.stack([SCENE[name].values for name in ("B4", "B3", "B2")])
    if scaling == "each":
        bands = np.stack([(bands[0] - 3) / 4, (bands[1] - 2) / 8, bands[2]])
    elif scaling == "one":
        bands = bands / 8
    expected = np.einsum("byx,ob->oyx", bands, WEIGHTS[..., 0, 0])
    predicted = found.predict_image(SCENE[["B2", "B3", "B4"]], merge=False)
    # Classes are in the order of their values.
    np.testing.assert_allclose([predicted["forest"], predicted["water"]], expected)


def test_all_forms_of_items(tmp_path: Path) -> None:
    item = described(href="models/m.onnx")
    options = vars(Model.from_mlm(item)) | {"connector": None}
    path = saved(tmp_path, item)
    for each, place in (
        (path, tmp_path),
        (str(path), tmp_path),
        (Item(item), Path.cwd()),
        (item | {"links": [{"rel": "self", "href": f"{tmp_path}/other/item.json"}]}, tmp_path / "other"),
    ):
        found = Model.from_mlm(each)
        assert found.connector.files.location.url == str(place / "models" / "m.onnx")
        assert vars(found) | {"connector": None} == options
    link = {"rel": "self", "href": "s3://bucket/catalog/items/item.json"}
    elsewhere = Model.from_mlm(described(href="../m.onnx") | {"links": [link]})
    assert str(elsewhere.connector) == "ONNX model s3://bucket/catalog/m.onnx"
    with pytest.raises(MissingModelError, match=r"none\.json"):
        Model.from_mlm(tmp_path / "none.json")
    (tmp_path / "text.json").write_text("{")
    with pytest.raises(ModelError, match=r"text\.json is not a STAC item: it is not JSON"):
        Model.from_mlm(tmp_path / "text.json")


@pytest.mark.parametrize(
    ("asset", "framework", "kind", "end"),
    [
        ({"href": "/m/a.onnx"}, None, OnnxConnector, "/m/a.onnx"),
        ({"href": "https://m.test/a.onnx?key=1"}, "PyTorch", OnnxConnector, "/a.onnx?key=1"),
        ({"href": "/m/a", "mlm:artifact_type": "onnx"}, None, OnnxConnector, "/m/a"),
        ({"href": "/m/a", "type": "application/octet-stream; framework=onnx"}, None, OnnxConnector, "/m/a"),
        ({"href": "/m/a"}, "ONNX", OnnxConnector, "/m/a"),
        ({"href": "/m/a.keras"}, "TensorFlow", KerasConnector, "/m/a.keras"),
        ({"href": "/m/a/saved_model.pb"}, None, SavedModelConnector, "/m/a"),
        ({"href": "/m/a", "mlm:artifact_type": "tf.saved_model"}, None, SavedModelConnector, "/m/a"),
        ({"href": "/m/a"}, "TensorFlow", SavedModelConnector, "/m/a"),
    ],
)
def test_kinds_of_models(asset: dict[str, Any], framework: str | None, kind: type, end: str) -> None:
    item = described(dims=["batch", "height", "width", "channel"], shape=(-1, 64, 64, 3))
    item["assets"]["model"].update(asset)
    item["properties"]["mlm:framework"] = framework
    connector = Model.from_mlm(item).connector
    assert type(connector) is kind
    assert str(connector).endswith(end)


def test_models_of_pytorch_are_exported(tmp_path: Path) -> None:
    for asset in (
        {"href": "https://m.test/a.pth"},
        {"href": "https://m.test/a", "type": "application/octet-stream; framework=pytorch"},
        {"href": "https://m.test/a.zip"},
    ):
        item = described()
        item["assets"]["model"].update(asset)
        with pytest.raises(ModelError, match=r"'https://m.test/a.*torch\.onnx\.export .*path='model\.onnx'"):
            Model.from_mlm(item)
        found = Model.from_mlm(item, path=tmp_path / "exported.ONNX")
        assert str(found.connector) == f"ONNX model {tmp_path}/exported.ONNX"
    for path, message in (
        ("m.pt2", r"path='m\.pt2' is not .* torch\.onnx\.export"),
        ("item.json", r"'item\.json' is not .*: pass an ONNX or Keras file"),
    ):
        with pytest.raises(ModelError, match=message):
            Model.from_mlm(described(), path=path)
    with pytest.raises(OptionError, match="path must be the path or URL of the file of the model; got 5"):
        Model.from_mlm(described(), path=5)


class Remote:
    """Like a UPath, which need not be an os.PathLike."""

    def __init__(self, url: str) -> None:
        self.url, self.storage_options, self.protocol = url, {"skip_instance_cache": True}, "memory"

    def __str__(self) -> str:
        return self.url


def test_paths_that_are_not_path_like() -> None:
    path, item = Remote("memory://mlm/m.onnx"), Remote("memory://mlm/item.json")
    plain = Model.from_mlm(described(), path="memory://mlm/m.onnx").connector
    connector = Model.from_mlm(described(), path=path).connector
    assert connector.files.location.url == plain.files.location.url
    assert connector == Model.from_onnx(path, channels="NCHW").connector
    fsspec.filesystem("memory").pipe_file("/mlm/item.json", json.dumps(described(href="m.onnx")).encode())
    assert Model.from_mlm(item).connector.files.location.url == connector.files.location.url


def test_several_models() -> None:
    item = described()
    item["assets"]["weights"] = {"href": "/m/a.pt", "roles": ["mlm:model"]}
    assert str(Model.from_mlm(item).connector).endswith("m.onnx")  # the only one that can be used
    item["assets"]["other"] = {"href": "/m/a.keras", "roles": ["mlm:model", "data"]}
    with pytest.raises(ModelError, match=r"several models, 'model', 'other': .* asset='model'"):
        Model.from_mlm(item)
    assert str(Model.from_mlm(item, asset="model").connector).endswith("m.onnx")
    with pytest.raises(OptionError, match=r"asset must be one of .*'model', 'weights', 'other'; got 'code'"):
        Model.from_mlm(item, asset="code")


def test_options_override_the_item() -> None:
    item = described(value_scaling=[{"type": "scale", "value": 8}])
    found = Model.from_mlm(
        item, bands=["a", "b", "c"], inputTileSize=32, output_bands=["p", "q"], normalize={"a": (0, 1)}
    )
    assert found.bands == ("a", "b", "c")
    assert found.input_tile_size.xy == (32, 32)
    assert list(found.output_bands) == ["p", "q"]
    assert found.normalize == {"a": (0, 1)}
    assert list(Model.from_mlm(item, bands=["a", "b", "c"]).normalize) == ["a", "b", "c"]
    assert Model.from_mlm(item, inputs={"a": "x"}).bands is None
    assert Model.from_mlm(item, bands=None, input_tile_size=None).bands == ("B4", "B3", "B2")
    assert Model.from_mlm(item, preprocessed=True).normalize is None


@pytest.mark.parametrize("unnamed", [{}, {"name": None}, {"name": " "}, {"name": 3}, ""])
def test_bands_without_names(unnamed: Any) -> None:
    """They are an error, once, unless users pass names."""
    item = described(bands=["B4", unnamed, {"format": "rio"}])
    message = (
        r"'cover' has 'x', an input .* with bands without a name, .* of all of them: bands=\[\.\.\.\]\.$"
    )
    with pytest.raises(ModelError, match=message):
        Model.from_mlm(item)
    assert Model.from_mlm(item, bands=["a", "b", "c"]).bands == ("a", "b", "c")
    assert Model.from_mlm(item, inputs={"a": "x"}).inputs == {"a": "x"}
    inputs, outputs = item["properties"]["mlm:input"], item["properties"]["mlm:output"]
    inputs.append(described(bands=[])["properties"]["mlm:input"][0] | {"name": "date"})
    with pytest.raises(ModelError, match=r"'x', an input .*: inputs=\{\.\.\.\}\.$"):
        Model.from_mlm(item)
    found = Model.from_mlm(item, inputs={"a": "x", "b": "x"})
    assert (found.inputs, found.input_properties) == ({"a": "x", "b": "x"}, ("date",))
    inputs[:] = described()["properties"]["mlm:input"]
    outputs[0]["bands"] = [unnamed, "q"]
    with pytest.raises(ModelError, match=r"'y', .*output with bands without .*: output_bands=\[\.\.\.\]\.$"):
        Model.from_mlm(item)
    assert list(Model.from_mlm(item, output_bands=["p", "q"]).output_bands) == ["p", "q"]
    rows = described((-1, 2), ["batch", "features"], [unnamed, "c"])
    with pytest.raises(ModelError, match=r": input_properties=\[\.\.\.\]\.$"):
        Model.from_mlm(rows)


def test_sizes_of_tiles() -> None:
    wide = described((1, 3, 64, 96))
    assert Model.from_mlm(wide).input_tile_size.xy == (96, 64)
    assert Model.from_mlm(wide, input_overlap_size=(8, 4)).input_tile_size.xy == (80, 56)
    assert Model.from_mlm(wide, input_overlap_size=8, overlap_is_total=True).input_tile_size.xy == (88, 56)
    assert Model.from_mlm(described((-1, 3, -1, -1))).input_tile_size is None
    with pytest.raises(OptionError, match=r"tiles of 96 x 64 pixels, and input_overlap_size=\(32, 32\)"):
        Model.from_mlm(wide, input_overlap_size=32)


def test_series_of_tiles(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    order = ["batch", "time", "bands", "height", "width"]
    encoded = model(
        [node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        {"x": ("float32", ["n", 4, 3, "h", "w"])},
        {"y": ("float32", ["n", 3, "h", "w"])},
        {"axis": np.array([1])},
    )
    (tmp_path / "m.onnx").write_bytes(encoded)
    item = described((1, 4, 3, 8, 8), order)
    item["properties"]["mlm:output"][0] = {
        "name": "sum",
        "bands": ["a", "b", "c"],
        "result": {"shape": [1, 3, 8, 8], "dim_order": AXES, "data_type": "float32"},
    }
    cube = SCENE.expand_dims(time=4).copy().assign_attrs(SCENE.attrs)
    found = Model.from_mlm(saved(tmp_path, item)).predict_image(cube, merge=False)
    np.testing.assert_array_equal(found["b"], 4 * SCENE["B3"])


def test_rows(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    encoded = model(
        [node("ReduceSum", ["x", "axis"], ["y"], keepdims=0)],
        {"x": ("float32", ["n", 2])},
        {"y": ("float32", ["n"])},
        {"axis": np.array([1])},
    )
    (tmp_path / "m.onnx").write_bytes(encoded)
    item = described((-1, 2), ["batch", "features"], ["b", "c"])
    item["properties"]["mlm:output"] = [
        {"name": "sum", "result": {"shape": [-1], "dim_order": ["batch"], "data_type": "float64"}}
    ]
    found = Model.from_mlm(saved(tmp_path, item))
    table = found.predict_properties(pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4], "c": [5.0, 6]}))
    assert table["sum"].tolist() == [8, 10]
    assert table["sum"].dtype == "float64"


def test_pixels() -> None:
    item = described((-1, 3), ["batch", "channel"])
    item["properties"]["mlm:output"][0]["result"] = {"shape": [-1, 2], "dim_order": ["batch", "class"]}
    found = Model.from_mlm(item, unit="pixel")
    assert found.bands == ("B4", "B3", "B2")
    assert list(found.output_bands) == ["forest", "water"]
    assert found.input_properties == ()
    assert found.output_properties is None


def test_several_inputs_and_outputs() -> None:
    item = described()
    inputs, outputs = item["properties"]["mlm:input"], item["properties"]["mlm:output"]
    inputs.append({**copy.deepcopy(inputs[0]), "name": "radar", "bands": [{"name": "VV"}]})
    inputs.append(
        {"name": "date", "bands": [], "input": {"shape": [-1, 1], "dim_order": ["batch", "channel"]}}
    )
    outputs[0]["result"]["shape"][1] = 1
    outputs.append(
        {"name": "p", "result": {"shape": [-1, 5, 8, 8], "dim_order": AXES, "data_type": "float32"}}
    )
    found = Model.from_mlm(item)
    assert found.inputs == {"B4": "x", "B3": "x", "B2": "x", "VV": "radar"}
    assert found.input_properties == ("date",)
    assert {name: kind.shape for name, kind in found.output_bands.items()} == {"y": None, "p": (5,)}
    inputs[1]["bands"] = ["B4"]
    with pytest.raises(ModelError, match="inputs that share bands"):
        Model.from_mlm(item)


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (
            {"shape": [-1, 2, 8, 8], "dim_order": AXES, "data_type": "float32"},
            {"forest": "float32", "water": "float32"},
        ),
        (
            {"shape": [-1, 2], "dim_order": ["batch", "classes"], "data_type": "float32"},
            {"forest": "float32", "water": "float32"},
        ),
        (
            {"shape": [-1, 8, 8], "dim_order": ["batch", "height", "width"], "data_type": "uint8"},
            {"y": "uint8"},
        ),
        ({"shape": [-1, 1, 8, 8], "dim_order": AXES, "data_type": "float64"}, {"y": "float64"}),
        ({"shape": [-1, 1, 8, 8], "dim_order": AXES, "data_type": "other"}, {"y": "None"}),
    ],
)
def test_outputs(result: dict[str, Any], expected: dict[str, str]) -> None:
    found = Model.from_mlm(output(**result)).output_bands
    assert {name: str(kind.dtype) for name, kind in found.items()} == expected
    assert [kind.limits for kind in found.values()] == [
        (0, 1) if kind == "uint8" else None for kind in expected.values()
    ]


def test_functions_that_are_not_applied_to_outputs_give_a_warning() -> None:
    item = described()
    item["properties"]["mlm:output"][0]["post_processing_function"] = {
        "format": "python",
        "expression": "softmax",
    }
    with pytest.warns(UserWarning, match=r"post_processing_function .*'softmax'.*, which is not applied"):
        Model.from_mlm(item)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (
            described(pre_processing_function={"format": "python", "expression": "f"}),
            r"pre_processing_function .*'f'.*preprocessed=True",
        ),
        (
            described(resize_type="interpolation-linear"),
            "resize_type 'interpolation-linear', which is not applied",
        ),
        (
            described(bands=[{"name": "ndvi", "format": "rio-calc", "expression": "a/b"}]),
            "expression 'a/b' of the band 'ndvi'",
        ),
        (described(bands=["B4", "B4", "B3"]), "names are repeated"),
        (
            described(value_scaling=[{"type": "clip", "minimum": 0, "maximum": 1}]),
            r"value_scaling .*'clip'.*normalize=",
        ),
        (described(value_scaling=[{"type": "z-score", "mean": 1}]), r"value_scaling .*'z-score'"),
        (
            described(value_scaling=[{"type": "scale", "value": 1}] * 2),
            r"2 value_scaling for the bands 'B4', 'B3', 'B2'",
        ),
        (
            described(bands=[], value_scaling=[{"type": "scale", "value": 2}]),
            r"1 value_scaling for the bands none.*bands=",
        ),
        (described((-1, 3, 8), AXES), "dim_order and shape of the same length"),
        (
            described(dims=["batch", "token", "height", "width"]),
            "dimensions 'batch', 'token', 'height', 'width'. Only",
        ),
        (described(dims=["batch", "channel", "band", "width"]), "Only batch, time"),
        (described(href="m.keras"), r"the order NCHW\. Tiles are sent channels last"),
        ({"id": "empty", "properties": {}, "assets": {}}, "'empty' has no list mlm:input"),
        ({"id": "odd", "properties": {"mlm:input": ["a"]}, "assets": {}}, r"no list mlm:input .*got \['a'\]"),
        ({"id": "none"}, "'none' is not a STAC item"),
        (
            described() | {"assets": {"thumb": {"href": "a.png"}}},
            r"no asset with the role 'mlm:model'.*'thumb'",
        ),
    ],
)
def test_items_that_cannot_be_used(item: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Model.from_mlm(item)


def test_items_are_mappings() -> None:
    with pytest.raises(OptionError, match=r"item must be a STAC item.*got 5"):
        Model.from_mlm(5)


def test_older_versions() -> None:
    old = described(norm_by_channel=True, norm_type="z-score", statistics=[{"mean": 1, "stddev": 2}] * 3)
    assert Model.from_mlm(old).normalize == dict.fromkeys(("B4", "B3", "B2"), (1.0, 2.0))
    outputs = old["properties"]["mlm:output"][0]
    outputs["classification_classes"] = outputs.pop("classification:classes")
    assert list(Model.from_mlm(old).output_bands) == ["forest", "water"]


def test_hostile_items() -> None:
    """A wrong value anywhere is an error of this package that names its field, or is ignored."""
    whole = described(value_scaling=[{"type": "z-score", "mean": 1, "stddev": 2}] * 3)
    whole["links"] = [{"rel": "self", "href": "s3://bucket/item.json"}]
    unclear = []
    for path in filter(None, paths(whole)):
        names = [key.removeprefix("mlm:") for key in path if isinstance(key, str)][-2:]
        names += ["mlm:input"] if path == ("properties",) else ["a path"] if path[-1] == "href" else []
        for value in (MISSING, *VALUES[::3], 10**30, float("nan"), {}):
            item = copy.deepcopy(whole)
            *front, last = path
            parent = functools.reduce(operator.getitem, front, item)
            if value is MISSING:
                del parent[last]
            else:
                parent[last] = value
            try:
                repr(Model.from_mlm(item))
            except XeeTFError as error:
                if len(str(error)) > 700 or not any(name in str(error) for name in names):
                    unclear.append((path, value, str(error)))
    assert not unclear


MISSING = object()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"shape": (-1, 3, 10**30, 8)},
            r"the shape \[-1, 3, 1000.* must be -1 \(any\) or from 1 to 2,147,483,647",
        ),
        ({"shape": (-1, 3, 0, 8)}, r"the shape \[-1, 3, 0, 8\]: the lengths"),
        ({"shape": (-7, 3, 8, 8)}, r"the shape \[-7, 3, 8, 8\]: the lengths"),
        ({"value_scaling": [{"type": "z-score", "mean": 1, "stddev": 0}]}, "'z-score'.* no number"),
        (
            {"value_scaling": [{"type": "min-max", "minimum": 2, "maximum": 2}]},
            "'min-max'.* no number",
        ),
        ({"value_scaling": [{"type": "offset", "value": float("nan")}]}, "'offset'.* must be finite"),
        ({"value_scaling": [{"type": "scale", "value": 10**400}]}, "has the value_scaling .*'scale'"),
        ({"value_scaling": [{"type": "scale", "value": True}]}, "has the value_scaling .*True"),
        ({"href": ""}, "no path or URL in the field 'href' of the asset 'model'; got ''.*path="),
    ],
)
def test_numbers_and_paths_that_cannot_be_used(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Model.from_mlm(described(**fields))


def test_folders_are_no_items(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"is a folder, not a STAC item: .*Model\.from_saved_model"):
        Model.from_mlm(tmp_path)
    for options, message in (
        ({"path": b"abc"}, "path must be the path or URL .*got b'abc'"),
        ({"path": ""}, "path must be the path or URL .*got ''"),
        ({"asset": ["model"]}, r"asset must be one of .*'model'; got \['model'\]"),
    ):
        with pytest.raises(OptionError, match=message):
            Model.from_mlm(described(), **options)
    for item in (b"abc", ""):
        with pytest.raises(OptionError, match=f"item must be a STAC item.*got {item!r}"):
            Model.from_mlm(item)


# -- Writing -------------------------------------------------------------------------------------------


def test_described_models_are_read_again(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(convolution(WEIGHTS, ("n", 3, "h", "w"), pad=0))
    original = Model.from_onnx(
        tmp_path / "m.onnx",
        bands=["B4", "B3", "B2"],
        input_tile_size=6,
        input_overlap_size=1,
        normalize={"B4": (3, 4), "B3": (0, 2), "B2": (1, 1)},
        output_bands=["forest", "water"],
    )
    item = original.to_mlm("cover", href="m.onnx", properties={"mlm:architecture": "CNN"})
    properties = item["properties"]
    assert properties["mlm:architecture"] == "CNN"
    assert properties["mlm:input"][0]["input"] == {
        "shape": [-1, 3, 8, 8],
        "dim_order": ["batch", "bands", "height", "width"],  # as the schema requires where bands are named
        "data_type": "float32",
    }
    assert properties["mlm:output"][0]["result"]["dim_order"] == ["batch", "class", "height", "width"]
    again = Model.from_mlm(saved(tmp_path, item), input_overlap_size=1)
    for name in ("bands", "input_tile_size", "normalize"):
        assert getattr(again, name) == getattr(original, name)
    found, expected = (each.predict_image(SCENE, merge=False) for each in (again, original))
    assert list(found) == ["forest", "water"]
    np.testing.assert_array_equal(found["water"], expected["water"])


def test_descriptions_of_outputs(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    path = tmp_path / "m.onnx"
    path.write_bytes(convolution(WEIGHTS, (1, 3, 8, 8), pad=0))
    bands = ["B4", "B3", "B2"]
    plain = Model.from_onnx(path, bands=bands, output_bands=["a", "b"])
    (output,) = plain.to_mlm("m", tasks=["regression"])["properties"]["mlm:output"]
    assert output["bands"] == ["a", "b"]
    assert output["result"]["dim_order"] == ["batch", "bands", "height", "width"]
    assert "classification:classes" not in output
    assert output["result"]["shape"] == [1, 2, 8, 8]
    (output,) = Model.from_onnx(path, bands=bands).to_mlm("m", classes={3: "x", 5: "y"})["properties"][
        "mlm:output"
    ]
    assert output["classification:classes"] == [{"value": 3, "name": "x"}, {"value": 5, "name": "y"}]
    assert list(Model.from_mlm(plain.to_mlm("m", tasks=["regression"])).output_bands) == ["a", "b"]


def test_classes_of_a_map_are_described(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "m.onnx").write_bytes(convolution(WEIGHTS, ("n", 3, "h", "w"), pad=0))
    bands = {"cover": {"argmax": ["oak wood", "lake"], "values": [30, 7]}}
    # The workers have a GPU, this computer has none.
    mapped = Model.from_onnx(
        tmp_path / "m.onnx",
        bands=["B4", "B3", "B2"],
        input_tile_size=8,
        output_bands=bands,
        providers=["CUDAExecutionProvider"],
    )
    item = mapped.to_mlm("m")
    (output,) = item["properties"]["mlm:output"]
    assert output["name"] == "cover"
    assert output["result"]["dim_order"] == ["batch", "class", "height", "width"]
    pairs = [{"value": 0, "name": "oak wood"}, {"value": 1, "name": "lake"}]
    assert output["classification:classes"] == pairs
    assert list(Model.from_mlm(item).output_bands) == ["oak wood", "lake"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": None}, "id must be the name of the item, .*got None"),
        ({"id": " "}, "id must be the name of the item, .*got ' '"),
        ({"href": 5}, "href must be the path or URL of the file of the model; got 5"),
        ({"href": b"m.onnx"}, "href must be the path or URL .*got b'm.onnx'"),
        ({"tasks": ["segmantation"]}, "tasks contains 'segmantation', .*Did you mean 'segmentation'"),
        ({"tasks": ["cut"]}, "tasks contains 'cut', .* Its tasks are 'regression', 'classification'"),
        ({"bbox": 5}, r"bbox must be \(west, south, east, north\) in degrees, which are four numbers; got 5"),
        ({"bbox": "wsen"}, "four numbers; got 'wsen'"),
        ({"bbox": (1, 2)}, r"four numbers; got \(1, 2\)"),
        ({"bbox": (float("nan"), 0, 1, 1)}, "west and east from -180 to 180"),
        ({"bbox": (47, 190, 48, 191)}, "south not above north, both from -90 to 90"),
        ({"bbox": (5, 50, 6, 40)}, "south not above north"),
        ({"bbox": (10, 40, 5, 50)}, "west not above east, unless it crosses 180 degrees"),
        ({"interval": 5}, "interval must be two dates or times, .*got 5"),
        ({"interval": ("2020-01-01",)}, "interval must be two dates"),
        ({"interval": (2020, 2021)}, "interval must be two dates"),
        ({"interval": ("2020-02-30", "2021-01-01")}, "interval must be two dates"),
        ({"interval": ("2022-01-01", "2021-01-01T00:00:00+01:00")}, "the first one not after the second"),
        ({"interval": np.array(["2020-01-01", "NaT"], "M8[ns]")}, "interval must be two dates"),
        ({"interval": [pd.Timestamp(2020, 1, 1), pd.NaT]}, "interval must be two dates"),
        ({"classes": "abc"}, r"classes must be names by their value, .*got 'abc'"),
        ({"classes": 5}, "classes must be a list of names"),
        ({"classes": {"x": "a", "y": "b"}}, "the value of a class must be a whole number; got 'x'"),
        ({"classes": {1: "a", 2: 5}}, r"classes must be names by their value"),
        ({"classes": ["a", "a"]}, "classes contains 'a' more than once"),
        (
            {"classes": ["a", "b", "c"]},
            "classes has 3 names, .*'c', but the output .* has 2 channels",
        ),
        ({"properties": 5}, "properties must be a mapping of names to values, .*got 5"),
        ({"properties": {5: 5}}, "properties must be a mapping"),
        ({"properties": {"note": {1}}}, r"properties\['note'\] cannot be written as JSON: .*set"),
        ({"properties": {"share": float("inf")}}, r"properties\['share'\] cannot be written as JSON"),
    ],
)
def test_options_that_cannot_be_described(options: dict[str, Any], message: str) -> None:
    pytest.importorskip("onnxruntime")
    found = Model.from_onnx(convolution(WEIGHTS), bands=["a", "b", "c"])
    with pytest.raises(OptionError, match=message):
        found.to_mlm(**({"id": "m", "href": "m.onnx"} | options))


def test_places_and_times_of_a_model() -> None:
    pytest.importorskip("onnxruntime")
    found = Model.from_onnx(convolution(WEIGHTS), bands=["a", "b", "c"])
    options: dict[str, Any] = {
        "href": Path("m.onnx"),
        "bbox": np.array([5, 40, 6, 50], "float32"),
        "interval": (date(2020, 1, 1), datetime(2021, 6, 30, 12, tzinfo=timezone(timedelta(hours=2)))),
        "classes": {np.int64(4): "x", 9: "y"},
    }
    item = found.to_mlm("m", **options)
    json.dumps(item, allow_nan=False)
    assert item["bbox"] == [5, 40, 6, 50]
    assert item["geometry"]["coordinates"] == [[[5, 40], [6, 40], [6, 50], [5, 50], [5, 40]]]
    assert item["properties"]["start_datetime"] == "2020-01-01T00:00:00Z"
    assert item["properties"]["end_datetime"] == "2021-06-30T12:00:00+02:00"
    assert item["assets"]["model"]["href"] == "m.onnx"
    text = ["2020-03-01T00:00:00Z", "2021-06-30T12:00:00Z"]
    times = pd.DatetimeIndex(["2020-03-01", "2021-06-30T12:00"])
    cube = xr.DataArray([0, 1], {"time": times}, ["time"])
    days = [np.datetime64("2020-03-01"), np.datetime64("2021-06-30T12")]
    for interval in (times, list(times), times.values, days, cube.time, (cube.time.min(), cube.time[-1])):
        properties = found.to_mlm("m", href="m.onnx", interval=interval)["properties"]
        assert [properties["start_datetime"], properties["end_datetime"]] == text
    pacific = found.to_mlm("m", href="m.onnx", bbox=(170, -50, -170, -30))
    west, east = pacific["geometry"]["coordinates"]
    assert [min(west[0]), max(west[0]), min(east[0]), max(east[0])] == [
        [170, -50],
        [180, -30],
        [-180, -50],
        [-170, -30],
    ]


def test_scales_of_some_bands_are_an_error_as_in_predictions() -> None:
    pytest.importorskip("onnxruntime")
    part = Model.from_onnx(convolution(WEIGHTS), bands=["B4", "B3", "B2"], normalize={"B3": (1, 2)})
    message = r"normalize lacks the inputs \['B4', 'B2'\]; it has \['B3'\]"
    with pytest.raises(OptionError, match=message):
        part.to_mlm("m", href="m.onnx")
    with pytest.raises(OptionError, match=message):
        part.predict_image(SCENE)


def test_scales_of_properties_are_described(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    encoded = model(
        [node("Add", ["x", "slope"], ["y"])],
        {"x": ("float32", ["n", 1, 1, 2]), "slope": ("float32", ["n", 1, 1, 1])},
        {"y": ("float32", ["n", 1, 1, 2])},
    )
    (tmp_path / "m.onnx").write_bytes(encoded)
    original = Model.from_onnx(
        tmp_path / "m.onnx",
        channels="last",
        inputs={"B4": "x", "B3": "x"},
        input_properties=["slope"],
        normalize={"B4": (3, 4), "B3": (0, 2), "slope": (10, 5)},
        input_tile_size=1,
        output_bands=["p", "q"],
    )
    again = Model.from_mlm(original.to_mlm("m"))
    assert again.normalize == original.normalize
    assert again.input_properties == ("slope",)


def test_models_that_cannot_be_described(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    function = Model.from_function(len, output_bands=["p"])
    with pytest.raises(ModelError, match="function len is not a model in a file"):
        function.to_mlm("m")
    encoded = convolution(WEIGHTS)
    with pytest.raises(OptionError, match=r"in memory: pass .* href="):
        Model.from_onnx(encoded, bands=["a", "b", "c"]).to_mlm("m")
    with pytest.raises(OptionError, match=r"bands of ONNX model .* are unknown: .*bands=\[\.\.\.\]"):
        Model.from_onnx(encoded).to_mlm("m", href="m.onnx")


def test_series_of_pixels_are_described(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    options: dict[str, Any] = {"bands": ["a", "b"], "unit": "pixel"}
    for channels, dims, shape in (
        ("first", ["batch", "bands", "time"], [-1, 2, 7]),
        ("last", ["batch", "time", "bands"], [-1, 7, 2]),
    ):
        (tmp_path / "m.onnx").write_bytes(identity(["n", *shape[1:]]))
        item = Model.from_onnx(tmp_path / "m.onnx", channels=channels, **options).to_mlm("m")
        described = item["properties"]["mlm:input"][0]["input"]
        assert (described["dim_order"], described["shape"]) == (dims, shape)
    (tmp_path / "m.onnx").write_bytes(identity(["n", 2, 3, 4]))
    with pytest.raises(ModelError, match="a tensor with 4 axes"):
        Model.from_onnx(tmp_path / "m.onnx", channels="first", **options).to_mlm("m")


def test_commands_take_every_kind_of_model(tmp_path: Path) -> None:
    item = saved(tmp_path, described(href="m.onnx"))
    upper = item.rename(tmp_path / "ITEM.JSON")
    for path, kind in (
        (upper, OnnxConnector),
        ("A.ONNX", OnnxConnector),
        ("m.hdf5", KerasConnector),
        ("m.Keras", KerasConnector),
        ("folder.v2", SavedModelConnector),
    ):
        assert type(model_at(str(path)).connector) is kind
    for name, constructor in (("a.HDF5", "from_keras"), ("a.json", "from_mlm"), ("a.b", "from_saved_model")):
        with pytest.raises(OptionError, match=rf"Use xee_tf\.Model\.{constructor}\('{name}'\)"):
            predict_to_zarr(name, SCENE, tmp_path / "x.zarr")
