"""Tests of the mixer: Earth Engine's text byte for byte, alternative keys, checks of values."""

import json
import re
from decimal import Decimal

import pytest
from affine import Affine
from hypothesis import example, given
from hypothesis import strategies as st

from tests.strategies import affines, sizes
from xee_tf.errors import MixerError
from xee_tf.geometry import PatchGrid, Size
from xee_tf.sidecars.mixer import Mixer, java_double

# Texts of mixers that Earth Engine itself wrote (public exports), to the byte.
AMERICAS = """{
  "projection": {
    "crs": "EPSG:4326",
    "affine": {
      "doubleMatrix": [0.050000000000004256, 0.0, -105.00000000000894, 0.0, -0.050000000000004256, 20.0000000000017]
    }
  },
  "patchDimensions": [256, 256],
  "patchesPerRow": 3,
  "totalPatches": 15
}"""  # noqa: E501
ROME = """{
  "projection": {
    "crs": "EPSG:4326",
    "affine": {
      "doubleMatrix": [8.983152841195215E-4, 0.0, 13.599595086285436, 0.0, -8.983152841195215E-4, 45.40175277468474]
    }
  },
  "patchDimensions": [256, 256],
  "patchesPerRow": 5,
  "totalPatches": 10
}"""  # noqa: E501
BHUTAN = """{
  "projection": {
    "crs": "EPSG:4326",
    "affine": {
      "doubleMatrix": [8.983152841195215E-5, 0.0, 89.39005136557161, 0.0, -8.983152841195215E-5, 27.448158253564596]
    }
  },
  "patchDimensions": [256, 256],
  "patchesPerRow": 1,
  "totalPatches": 1
}"""  # noqa: E501
GOLDEN = {"americas": AMERICAS, "rome": ROME, "bhutan": BHUTAN}

WKT = (
    'PROJCS["MODIS Sinusoidal",GEOGCS["Sphere",DATUM["Sphere",SPHEROID["Sphere",6371007.181,0]],'
    'PRIMEM["Greenwich",0],UNIT["degree",0.0174532925199433]],PROJECTION["Sinusoidal"],UNIT["Meter",1]]'
)

finite = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | st.text(st.characters(codec="utf-8")),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3)
    ),
    max_leaves=8,
)


def a_mixer(**changes):
    """Return the document of a valid mixer, with some keys replaced."""
    document = json.loads(AMERICAS)
    document.update(changes)
    return {key: value for key, value in document.items() if value is not ...}


# -- Numbers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (-28.5, "-28.5"),
        (0.001, "0.001"),
        (0.0009999999999999998, "9.999999999999998E-4"),
        (9999999.0, "9999999.0"),
        (9999999.999999998, "9999999.999999998"),
        (1e7, "1.0E7"),
        (-12345678.9, "-1.23456789E7"),
        (123456789012345680.0, "1.2345678901234568E17"),
        (2e23, "2.0E23"),
        (1.0e-5, "1.0E-5"),
        (5e-324, "4.9E-324"),  # Double.MIN_VALUE, as Java documents it
        (2.2250738585072014e-308, "2.2250738585072014E-308"),
        (1.7976931348623157e308, "1.7976931348623157E308"),
    ],
)
def test_java_double_matches_java(value, text):
    assert java_double(value) == text


@given(finite)
@example(9.9e-324)
@example(2.0**-44)
def test_java_double_is_exact_and_shortest(value):
    text = java_double(value)
    assert float(text) == value
    if value == 0 or Decimal("1e-3") <= abs(Decimal(value)) < Decimal("1e7"):
        assert re.fullmatch(r"-?(0|[1-9]\d*)\.\d+", text)
    else:
        assert re.fullmatch(r"-?[1-9]\.\d+E-?[1-9]\d*", text)
    # Rounding the last digit changes the value.
    digits = Decimal(text).normalize().as_tuple().digits
    if len(digits) > 2:
        assert float(f"{value:.{len(digits) - 2}e}") != value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_java_double_of_numbers_that_are_not_finite_raises(value):
    with pytest.raises(MixerError, match="finite"):
        java_double(value)


# -- Text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", GOLDEN.values(), ids=GOLDEN)
def test_byte_for_byte_round_trip_of_files_from_earth_engine(text, tmp_path):
    source = tmp_path / "scene-mixer.json"
    source.write_bytes(text.encode())
    written = Mixer.read(source).write(tmp_path / "copy-mixer.json")
    assert written.read_bytes() == text.encode()


def test_values_of_a_file_from_earth_engine():
    mixer = Mixer.parse(AMERICAS)
    assert mixer.crs == "EPSG:4326"
    assert mixer.affine @ (0, 0) == (-105.00000000000894, 20.0000000000017)
    assert mixer.affine.a > 0 > mixer.affine.e
    assert (mixer.patch, mixer.patches_per_row, mixer.rows, mixer.total_patches) == (
        Size(x=256, y=256),
        3,
        5,
        15,
    )
    assert mixer.extra == {}


def test_the_grid_of_a_file_from_earth_engine_gives_the_same_text():
    affine = Affine(0.050000000000004256, 0, -105.00000000000894, 0, -0.050000000000004256, 20.0000000000017)
    grid = PatchGrid(
        Size(x=3 * 256 + 255, y=5 * 256 + 1), Size(x=256, y=256), Size(x=30, y=30), affine, "EPSG:4326"
    )
    assert Mixer.from_grid(grid).text() == AMERICAS


@given(
    affine=affines(),
    patch=sizes(),
    columns=st.integers(1, 50),
    rows=st.integers(1, 50),
    extra=st.dictionaries(st.text(min_size=1, max_size=5).map("x".__add__), json_values, max_size=3),
)
def test_round_trip_of_any_mixer(affine, patch, columns, rows, extra):
    mixer = Mixer("EPSG:32632", affine, patch, columns, columns * rows, extra)
    text = mixer.text()
    assert Mixer.parse(text) == mixer
    document = json.loads(text)  # valid JSON
    assert document["projection"]["affine"]["doubleMatrix"] == list(affine)[:6]
    assert document["patchDimensions"] == [patch.x, patch.y]
    assert {key: document[key] for key in extra} == extra


@given(affines(), sizes(), sizes(), sizes(), st.sampled_from(["drop", "pad"]))
def test_grid_and_mixer_agree(affine, patch, extent, margin, edge):
    shape = Size(x=patch.x + extent.x, y=patch.y + extent.y)
    grid = PatchGrid(shape, patch, margin, affine, "EPSG:3857", edge=edge)
    again = Mixer.from_grid(grid).grid(margin)
    assert (again.patches_per_row, again.rows, again.stored, again.crs) == (
        grid.patches_per_row,
        grid.rows,
        grid.stored,
        grid.crs,
    )
    assert again.transform(len(again) - 1, halo=True) == grid.transform(len(grid) - 1, halo=True)


def test_a_grid_without_crs_raises():
    with pytest.raises(MixerError, match="requires a CRS"):
        Mixer.from_grid(PatchGrid(Size(x=4, y=4), Size(x=2, y=2)))


# -- Tolerant reading -------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["crs", "wkt", "crsWkt", "crsCode"])
def test_spellings_of_the_key_of_a_wkt_crs(key):
    projection = {key: WKT, "affine": {"doubleMatrix": [1, 0, 2, 0, -1, 3]}}
    mixer = Mixer.parse(json.dumps(a_mixer(projection=projection)))
    assert mixer.crs == WKT
    assert Mixer.parse(mixer.text()) == mixer


@pytest.mark.parametrize(
    "spelling",
    [
        {"affine": {"doubleMatrix": [2, 0.5, 10, 0.25, 3, 20]}},
        {"affine": [2, 0.5, 10, 0.25, 3, 20]},
        {"transform": [2, 0.5, 10, 0.25, 3, 20]},
        {"crsTransform": [2, 0.5, 10, 0.25, 3, 20]},
        {
            "affineTransform": {
                "scaleX": 2,
                "shearX": 0.5,
                "translateX": 10,
                "shearY": 0.25,
                "scaleY": 3,
                "translateY": 20,
            }
        },
    ],
)
def test_spellings_of_an_affine_sheared_and_south_up(spelling):
    mixer = Mixer.parse(json.dumps(a_mixer(projection={"crs": "EPSG:4326", **spelling})))
    assert mixer.affine == Affine(2, 0.5, 10, 0.25, 3, 20)
    assert mixer.extra == {}


def test_an_affine_from_the_rest_api_may_lack_zeros():
    projection = {"crs": "EPSG:4326", "affine": {"scaleX": 2, "scaleY": -2}}
    assert Mixer.parse(json.dumps(a_mixer(projection=projection))).affine == Affine(2, 0, 0, 0, -2, 0)


def test_unknown_keys_are_preserved():
    document = a_mixer(
        kernelSize=[32, 32], note={"by": "someone", "résumé": [1, 2.0, None, True, []], "o": {}}
    )
    document["projection"]["type"] = "Projection"
    document["projection"]["affine"]["unit"] = "m"
    document["projection"]["transform"] = [1, 2]  # another spelling; the first one takes precedence
    mixer = Mixer.parse(json.dumps(document))
    assert mixer.extra == {
        "kernelSize": [32, 32],
        "note": document["note"],
        "projection": {"type": "Projection", "affine": {"unit": "m"}, "transform": [1, 2]},
    }
    assert json.loads(mixer.text()) == document
    assert mixer.text().endswith(
        '  "totalPatches": 15,\n  "kernelSize": [32, 32],\n  "note": {\n    "by": "someone",\n'
        '    "résumé": [1, 2.0, null, true, []],\n    "o": {}\n  }\n}'
    )


def test_a_byte_order_mark_is_ignored(tmp_path):
    path = tmp_path / "mixer.json"
    path.write_text(ROME, encoding="utf-8-sig")
    assert Mixer.read(path) == Mixer.parse(ROME)


def test_object_stores(tmp_path):
    location = Mixer.parse(ROME).write("memory://test-mixer/scene-mixer.json")
    assert Mixer.read(location) == Mixer.read(str(location)) == Mixer.parse(ROME)


# -- Strict values ----------------------------------------------------------------------------------


def projection(**changes):
    base = {"crs": "EPSG:4326", "affine": {"doubleMatrix": [1, 0, 0, 0, -1, 0]}, **changes}
    return {"projection": {key: value for key, value in base.items() if value is not ...}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projection": ...}, 'no "projection"'),
        ({"projection": "EPSG:4326"}, "projection must be an object; got 'EPSG:4326'"),
        ({"patchDimensions": ...}, 'no "patchDimensions"'),
        ({"patchDimensions": 256}, r"patchDimensions must be \[width, height\]; got 256"),
        ({"patchDimensions": [256]}, r"patchDimensions must be \[width, height\]; got \[256\]"),
        ({"patchDimensions": [256, 0]}, "patchDimensions must be an integer of at least 1; got 0"),
        (
            {"patchDimensions": [256.5, 256]},
            "patchDimensions must be an integer .*; got 256.5",
        ),
        ({"patchesPerRow": "3"}, "patchesPerRow must be an integer of at least 1; got '3'"),
        ({"patchesPerRow": -3}, "patchesPerRow must be an integer of at least 1; got -3"),
        ({"patchesPerRow": True}, "patchesPerRow must be an integer of at least 1; got True"),
        ({"totalPatches": None}, "totalPatches must be an integer of at least 1; got None"),
        ({"totalPatches": 16}, "totalPatches must be a multiple of patchesPerRow .* got 16 and 3"),
        (projection(crs=...), "projection has no \"crs\".*available keys: 'affine'"),
        (projection(crs=4326), "crs must be a string .* got 4326"),
        (projection(crs=" "), "crs must be a string .* got ' '"),
        (projection(affine=...), 'projection has no "affine"'),
        (projection(affine=[1, 0, 0]), r"affine must be six finite numbers .* got \[1, 0, 0\]"),
        (projection(affine={"matrix": 1}), r"affine must be six finite numbers .* got \{'matrix': 1\}"),
        (
            projection(affine=[1, 0, 0, 0, "-1", 0]),
            "affine must be six finite numbers .* one of them is '-1'",
        ),
        (
            projection(affine=[1, 0, 0, 0, True, 0]),
            "affine must be six finite numbers .* one of them is True",
        ),
        (projection(affine=[1, 0, float("nan"), 0, -1, 0]), "doubleMatrix must be six finite .*nan"),
        (projection(affine=[1, 0, 10**400, 0, -1, 0]), "doubleMatrix must be six finite .*inf"),
        (projection(affine=[1, 2, 0, 2, 4, 0]), "doubleMatrix must be invertible"),
    ],
)
def test_invalid_values_raise(changes, message):
    with pytest.raises(MixerError, match=f"^scene-mixer.json: .*{message}"):
        Mixer.parse(json.dumps(a_mixer(**changes)), source="scene-mixer.json")


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", "[" * 100_000])
def test_text_that_is_not_a_mixer(text, tmp_path):
    path = tmp_path / "bad-mixer.json"
    path.write_text(text)
    with pytest.raises(MixerError, match=r"bad-mixer\.json: (not valid JSON|a mixer is a JSON object)"):
        Mixer.read(path)


def test_files_that_are_binary_or_missing(tmp_path):
    path = tmp_path / "mixer.json"
    path.write_bytes(b"\x1f\x8b\x08\x00")
    with pytest.raises(MixerError, match=r"mixer\.json is not a mixer: it is not UTF-8"):
        Mixer.read(path)
    with pytest.raises(FileNotFoundError):
        Mixer.read(tmp_path / "none.json")


def test_prefix_or_folder_of_an_export_is_not_a_mixer(tmp_path):
    (tmp_path / "july-mixer.json").touch()
    for name in ("july", "."):
        with pytest.raises(
            FileNotFoundError, match=r"pass the file of a mixer, such as .*july-mixer\.json\."
        ):
            Mixer.read(tmp_path / name)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"totalPatches": 3}, "cannot replace the key 'totalPatches'"),
        ({"projection": {"affine": {"doubleMatrix": []}}}, "'projection.affine.doubleMatrix'"),
        ({"projection": 1}, "cannot replace the key 'projection'"),
        ({1: 2}, "must have strings as keys; got 1"),
    ],
)
def test_extra_cannot_replace_fields(extra, message):
    with pytest.raises(MixerError, match=message):
        Mixer("EPSG:4326", Affine.identity(), Size(x=1, y=1), 1, 1, extra)


def test_extra_that_json_cannot_represent():
    mixer = Mixer("EPSG:4326", Affine.identity(), Size(x=1, y=1), 1, 1, {"when": {1, 2}})
    with pytest.raises(MixerError, match="cannot be encoded as JSON"):
        mixer.text()


@given(json_values)
def test_any_json_is_parsed_or_raises_a_mixer_error(value):
    with pytest.raises(MixerError):
        Mixer.parse(json.dumps(value))


@given(
    st.sampled_from(["projection", "patchDimensions", "patchesPerRow", "totalPatches", "crs", "affine"]),
    json_values,
)
def test_any_value_of_any_key_is_parsed_or_raises_a_mixer_error(key, value):
    document = a_mixer()
    (document["projection"] if key in ("crs", "affine") else document)[key] = value
    try:
        mixer = Mixer.parse(json.dumps(document))
    except MixerError:
        return
    assert Mixer.parse(mixer.text()) == mixer
