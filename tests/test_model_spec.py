"""Options, types and projections of models, in both spellings."""

from __future__ import annotations

import inspect
import pickle
import re
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, fields, replace
from typing import Any

import docstring_parser
import numpy as np
import pyproj
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import xee_tf
from tests.optional import optional
from xee_tf.dtypes import coerce
from xee_tf.errors import GeoreferenceError, OptionError
from xee_tf.geometry import Size
from xee_tf.models.options import ModelKeywords
from xee_tf.models.projection import Projection
from xee_tf.models.types import PixelType, pixel_type

GeoBox = optional("odc.geo.geobox", "GeoBox")

# Options of the location of a model and of its requests.
OF_ENDPOINTS = {
    "projectName",
    "projectId",
    "modelName",
    "version",
    "region",
    "endpoint",
    "maxPayloadBytes",
    "payloadFormat",
}

# Options of the model itself.
EE_NAMES = {
    "inputProperties",
    "inputTypeOverride",
    "inputShapes",
    "proj",
    "fixInputProj",
    "inputTileSize",
    "inputOverlapSize",
    "outputTileSize",
    "outputBands",
    "outputProperties",
    "outputMultiplier",
}


def snake(name: str) -> str:
    return re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name)


def model(**options: Any) -> xee_tf.Model:
    return xee_tf.Model.from_function(np.sum, **options)


@pytest.fixture
def earth_engine() -> Iterator[Any]:
    """earthengine-api, set up without a server, as in its own tests."""
    ee = pytest.importorskip("ee")
    from ee import apitestcase

    case = apitestcase.ApiTestCase()
    case.setUp()
    yield ee
    case.tearDown()


# -- Options ---------------------------------------------------------------------------------------


def test_option_names_of_earth_engine() -> None:
    ee = pytest.importorskip("ee")

    parameters: set[str] = set()
    for constructor in (ee.Model.fromAiPlatformPredictor, ee.Model.fromVertexAi):
        parameters |= set(inspect.signature(constructor).parameters)
    assert parameters - OF_ENDPOINTS == set(EE_NAMES)
    methods = {name for name in ("predictImage", "predictProperties") if hasattr(ee.Model, name)}
    assert all(hasattr(xee_tf.Model, name) for name in methods)
    names = {field.name for field in fields(xee_tf.Model)} - {"connector"}
    assert names | {"overlap_is_total"} == set(ModelKeywords.__annotations__)
    assert {snake(name) for name in EE_NAMES} <= names


def test_option_names_of_earth_engine_algorithms() -> None:
    pytest.importorskip("ee")
    from ee import apitestcase

    for name in ("Model.fromAiPlatformPredictor", "Model.fromVertexAi"):
        arguments = {found["name"] for found in apitestcase.GetAlgorithms()[name]["args"]}
        assert arguments - OF_ENDPOINTS == set(EE_NAMES)


def test_both_spellings_are_equivalent() -> None:
    camel_case = model(
        inputProperties=["season"],
        inputTypeOverride={"B4": {"type": "PixelType", "precision": "float"}},
        inputShapes={"series": [12]},
        proj={"type": "Projection", "crs": "EPSG:32633", "transform": [30, 0, 3e5, 0, -30, 5e6]},
        fixInputProj=True,
        inputTileSize=[144, 128],
        inputOverlapSize=[8, 4],
        outputTileSize=[72, 64],
        outputBands={
            "p": {"type": {"type": "PixelType", "precision": "int", "min": 0, "max": 9}, "dimensions": 1}
        },
        outputProperties={"q": {"type": "double"}},
        outputMultiplier=2,
    )
    snake_case = model(
        input_properties=["season"],
        input_type_override={"B4": "float32"},
        input_shapes={"series": (12,)},
        proj=("EPSG:32633", (30, 0, 3e5, 0, -30, 5e6)),
        fix_input_proj=True,
        input_tile_size=(144, 128),
        input_overlap_size=(16, 8),
        overlap_is_total=True,
        output_tile_size=(72, 64),
        output_bands={"p": {"type": {"precision": "int", "minValue": 0, "maxValue": 9}, "dimensions": 1}},
        output_properties={"q": np.float64},
        output_multiplier=2.0,
    )
    assert camel_case == snake_case
    assert snake_case.input_tile_size == Size(x=144, y=128)
    assert snake_case.input_overlap_size == Size(x=8, y=4)
    assert snake_case.output_bands == {"p": PixelType(np.dtype("uint8"), 1, limits=(0, 9))}
    assert pickle.loads(pickle.dumps(snake_case)) == snake_case


def test_none_is_the_default() -> None:
    assert model(**dict.fromkeys(EE_NAMES)) == model()


def test_all_constructors_accept_the_same_options() -> None:
    connector = model().connector
    options: dict[str, Any] = {
        "bands": ["B4", "B3"],
        "input_tile_size": 64,
        "input_overlap_size": 16,
        "overlap_is_total": True,
        "input_type_override": {"B4": "float"},
        "input_shapes": {"B4": [12]},
        "array_dims": "time",
        "proj": ("EPSG:32633", 30),
        "output_bands": {"p": {"type": "byte", "shape": [3]}},
        "output_multiplier": 2,
    }
    made = xee_tf.Model(connector=connector, **options)
    assert made == xee_tf.Model.from_connector(connector, **options) == model(**options)
    assert (made.input_tile_size, made.input_overlap_size) == (Size(x=64, y=64), Size(x=8, y=8))
    assert (made.bands, made.array_dims) == (("B4", "B3"), ("time",))
    assert made.output_bands == {"p": PixelType(np.dtype("uint8"), 1, shape=(3,))}
    assert xee_tf.Model(connector, inputTileSize=[64, 32], outputBands=["p"]) == xee_tf.Model(
        connector, input_tile_size=(64, 32), output_bands="p"
    )
    assert "array dims   time" in repr(made)
    assert "array bands  B4: 12" in repr(made)
    assert "none, all are mapped over" in repr(xee_tf.Model(connector, array_dims=()))
    assert pickle.loads(pickle.dumps(made)) == made


def test_copies_with_other_options() -> None:
    made = model(bands=["B4"], input_tile_size=64, input_overlap_size=8, output_bands={"p": "uint8"})
    assert replace(made) == made
    larger = replace(made, input_tile_size=128, output_bands=["q"])
    assert (larger.input_tile_size, larger.input_overlap_size) == (Size(x=128, y=128), Size(x=8, y=8))
    assert (larger.bands, larger.output_bands) == (("B4",), {"q": PixelType()})
    assert replace(made, bands=None).bands is None
    with pytest.raises(OptionError, match="at least 1"):
        replace(made, input_tile_size=0)
    with pytest.raises(FrozenInstanceError):
        made.bands = ("B3",)


@pytest.mark.parametrize("wrong", [np.sum, "models/unet", None, 3])
def test_objects_that_are_not_connectors(wrong: Any) -> None:
    with pytest.raises(OptionError, match=r"must be a Connector.*from_function"):
        xee_tf.Model(connector=wrong)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inputTileSise": 4}, "inputTileSise.*input_tile_size"),
        ({"inputTileSize": 4, "input_tile_size": 4}, "twice"),
        ({"input_tile_size": 0}, "at least 1"),
        ({"input_tile_size": "256"}, "pair"),
        ({"input_overlap_size": 3, "overlap_is_total": True}, "even"),
        ({"input_overlap_size": -1}, "negative"),
        ({"output_multiplier": 0.5}, "of at least 1; got 0.5"),
        ({"output_multiplier": float("nan")}, "of at least 1"),
        ({"proj": "EPSG:32633"}, "no scale.*30"),
        ({"proj": {"crs": "EPSG:32633"}}, "no scale"),
        ({"proj": ("EPSG:32633", 0)}, "positive"),
        ({"proj": ("EPSG:32633", [30, 0, 0, 0, 0, 0])}, "six numbers"),
        ({"proj": {"transform": [30, 0, 0, 0, -30, 0]}}, "no CRS"),
        ({"proj": 3.5}, "CRS with a grid"),
        ({"fix_input_proj": "yes"}, "True or False"),
        ({"input_properties": ["a", "a"]}, "input_properties contains 'a' more than once"),
        ({"bands": 3}, "list of names"),
        ({"inputs": ["B4"]}, "mapping"),
        ({"inputs": {"B4": "x"}, "bands": ["B4"]}, "cannot be combined"),
        ({"input_shapes": {"series": [0]}}, "shape"),
        ({"input_type_override": {"B4": "complex64"}}, "B4.*complex64"),
        ({"input_type_override": {"B4": {"precision": "half"}}}, "precision"),
        ({"output_bands": {}}, "empty"),
        ({"output_bands": []}, "empty"),
        ({"output_bands": [""]}, "empty name"),
        ({"output_bands": ""}, "empty name"),
        ({"output_bands": {"": "float"}}, "empty name"),
        ({"output_bands": ["p", "q", "p"]}, "'p' more than once"),
        ({"output_bands": ["p", 4]}, "list of names"),
        ({"output_bands": {4: "float"}}, "mapping"),
        ({"output_bands": {"p", "q"}}, "list of names"),
        ({"output_bands": b"p"}, "list of names"),
        ({"output_properties": []}, "empty"),
        ({"bands": []}, "empty"),
        ({"bands": ["B4", ""]}, "empty name"),
        ({"input_properties": ["", "a"]}, "empty name"),
        ({"array_dims": ["time", "time"]}, "'time' more than once"),
        ({"array_dims": {"time": 12}}, "list of names"),
        ({"array_dims": 12}, "list of names"),
        ({"output_bands": {"p": {"dimension": 1}}}, r"unknown fields 'dimension'.*'dimensions'"),
        ({"output_bands": {"p": {"dimensions": -1}}}, "whole number"),
        ({"output_bands": {"p": {"dimensions": 2, "shape": [3]}}}, "not match dimensions 2"),
        ({"output_bands": {"p": {"type": "float31"}}}, "float31"),
    ],
)
def test_invalid_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model(**options)


@pytest.mark.parametrize("name", [name for name in dir(xee_tf.Model) if name.startswith("from")])
def test_constructors_describe_every_parameter(name: str) -> None:
    constructor = getattr(xee_tf.Model, name)
    described = [
        name
        for each in docstring_parser.parse(constructor.__doc__ or "").params
        for name in each.arg_name.split(", ")
        if each.description
    ]
    assert described == list(inspect.signature(constructor).parameters)


def test_reprs_show_the_options_and_do_not_load_the_model() -> None:
    landcover = xee_tf.Model.from_saved_model(
        "models/<unet>",
        bands=["B4", "B3"],
        input_tile_size=(144, 128),
        input_overlap_size=8,
        output_tile_size=(72, 64),
        proj=("EPSG:32633", 30),
        input_type_override={"B4": "float32"},
        input_properties=["season"],
        output_bands={"p": {"type": "uint8", "shape": [3]}, "q": {"type": "float32", "dimensions": 2}},
    )
    text = repr(landcover)
    for part in (
        "models/<unet>",
        "144 × 128 px",
        "8 × 8",
        "72 × 64",
        "EPSG:32633",
        "B4, B3",
        "p: uint8 (3)",
    ):
        assert part in text
    html = landcover._repr_html_()
    assert "&lt;unet&gt;" in html
    assert "<unet>" not in html
    assert "144 × 128 px" in html
    assert len(repr(model(bands=[f"B{number}" for number in range(500)]))) < 400


def test_reprs_show_array_dims() -> None:
    def row(model: xee_tf.Model) -> str:
        lines = [line for line in repr(model).splitlines() if line.startswith("  array")]
        (line,) = lines
        return " ".join(line.split())

    assert row(xee_tf.Model.from_function(len)) == "array dims none, all are mapped over"
    assert row(xee_tf.Model.from_function(len, array_dims=())) == "array dims none, all are mapped over"
    assert row(xee_tf.Model.from_function(len, array_dims=["time", "run"])) == "array dims time, run"
    assert row(xee_tf.Model.from_function(len, input_shapes={"a": [7]})) == "array bands a: 7"
    assert "in the shapes of its inputs; others are mapped" in row(xee_tf.Model.from_saved_model("no/model"))


# -- Types -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "dtype"),
    [
        ("float", "float32"),
        ("double", "float64"),
        ("byte", "uint8"),
        ("short", "int16"),
        ("int", "int32"),
        ("long", "int64"),
        ("uint16", "uint16"),
        (np.float64, "float64"),
        (float, "float64"),
        (">i2", "int16"),
        (bool, "bool"),
        ("string", "O"),
        (str, "O"),
        ({"type": "PixelType", "precision": "double"}, "float64"),
        ({"type": "PixelType", "precision": "int"}, "int32"),
        ({"type": "PixelType", "precision": "int", "min": 0, "max": 255}, "uint8"),
        ({"type": "PixelType", "precision": "int", "min": -128, "max": 127}, "int8"),
        ({"type": "PixelType", "precision": "int", "min": -1, "max": 255}, "int16"),
        ({"type": "PixelType", "precision": "int", "min": 0, "max": 2**32 - 1}, "uint32"),
        ({"type": "PixelType", "precision": "int", "min": -(2**63), "max": 2**63 - 1}, "int64"),
    ],
)
def test_types(given: Any, dtype: str) -> None:
    found = pixel_type(given, "B4")
    assert (found.dtype, found.dimensions) == (np.dtype(dtype), None)


@pytest.mark.parametrize("given", ["nothing", "9" * 5000, "M8[25", "i1[2", "(" * 50])
def test_texts_that_are_no_types(given: str) -> None:
    with pytest.raises(OptionError, match=r"^B4: .* is not a type. Use "):
        pixel_type(given, "B4")


@pytest.mark.parametrize("given", ["complex64", np.longdouble, "M8[s]"])
def test_types_that_no_file_stores(given: Any) -> None:
    with pytest.raises(OptionError, match=r"^B4: .* is not a type of real numbers of at most 64 bits\. Use "):
        pixel_type(given, "B4")


def test_pixel_types_of_earthengine_api(earth_engine: Any) -> None:
    types = earth_engine.PixelType
    for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32"):
        assert pixel_type(getattr(types, name)(), "B4") == PixelType(np.dtype(name))
    assert pixel_type(types.float(), "B4").dtype == np.float32
    assert pixel_type(types.double(), "B4").dtype == np.float64
    assert pixel_type(types("int", 0, 1000), "B4") == PixelType(np.dtype("uint16"), None, (0, 1000))
    assert pixel_type(types("double", None, None, 2), "B4") == PixelType(np.dtype("float64"), 2)
    with pytest.raises(OptionError, match="getInfo"):
        pixel_type(types(earth_engine.String("int").cat("")), "B4")
    found = model(outputBands={"p": {"type": types.int8(), "dimensions": 1}})
    assert found.output_bands == {"p": PixelType(np.dtype("int8"), 1)}


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "float16",
    "float32",
    "float64",
]


@pytest.mark.parametrize("source", ["float16", "float32", "float64"])
@pytest.mark.parametrize("target", ["int32", "uint32", "int64", "uint64"])
def test_values_out_of_range_are_clamped(source: str, target: str) -> None:
    found = coerce(np.array([np.inf, -np.inf, 7.9], source), np.dtype(target))
    assert found.tolist() == [np.iinfo(target).max, np.iinfo(target).min, 7]


@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(DTYPES))
def test_conversion_truncates_fractions_and_clamps(data: st.DataObject, source: str, target: str) -> None:
    elements = {"allow_nan": False} if np.dtype(source).kind == "f" else {}
    values = data.draw(arrays(source, 5, elements=elements or None))
    found = coerce(values, np.dtype(target))
    assert found.dtype == target
    for value, got in zip(values.tolist(), found.tolist(), strict=True):
        if np.dtype(target).kind in "iu":
            limits = np.iinfo(target)
            whole = limits.max if value == np.inf else limits.min if value == -np.inf else int(value)
            assert got == min(max(whole, limits.min), limits.max)
        else:
            with np.errstate(over="ignore"):
                np.testing.assert_equal(got, np.dtype(target).type(value).item())
    out = np.empty(5, target)
    assert coerce(values, np.dtype(target), out) is out
    np.testing.assert_array_equal(out, found)


# -- Projections -----------------------------------------------------------------------------------


def test_scales_are_in_metres() -> None:
    assert Projection.of(("EPSG:32633", 30)).affine == Affine(30, 0, 0, 0, -30, 0)
    # The scales of real exports of 10 m and 100 m pixels, in degrees.
    for metres, degrees in ((10, 8.983152841195215e-05), (100, 8.983152841195215e-04)):
        assert Projection.of({"crs": "EPSG:4326", "scale": metres}).transform[0] == degrees
    feet = Projection.of(("EPSG:2264", 30))
    assert feet.transform[0] == pytest.approx(30 / 0.3048006096)


def test_accepted_forms_of_projections(earth_engine: Any) -> None:
    six = (30.0, 0.0, 3e5, 0.0, -30.0, 5e6)
    expected = Projection("EPSG:32633", six)
    box = GeoBox((10, 10), Affine(*six), "EPSG:32633")
    wkt = pyproj.CRS("EPSG:32633").to_wkt()
    for form in (
        expected,
        ("EPSG:32633", six),
        (pyproj.CRS(32633), Affine(*six)),
        {"type": "Projection", "crs": "EPSG:32633", "transform": list(six)},
        {"type": "Projection", "wkt": wkt, "transform": list(six)},
        box,
        earth_engine.Projection("EPSG:32633", list(six)),
    ):
        assert Projection.of(form) == expected
    with pytest.raises(OptionError, match="no scale"):
        Projection.of(earth_engine.Projection("EPSG:32633"))
    assert Projection.of(earth_engine.Projection("EPSG:32633").atScale(30)) == Projection.of(
        ("EPSG:32633", 30)
    )
    with pytest.raises(OptionError, match="getInfo"):
        Projection.of(earth_engine.Projection("EPSG:32633", list(six)).atScale(30))
    with pytest.raises(OptionError, match="getInfo"):
        Projection.of(earth_engine.Image(0).projection())
    with pytest.raises(GeoreferenceError, match="EPSG:9999999"):
        Projection.of(("EPSG:9999999", 30))
