"""Tests of Earth Engine's spelling: supported options work, others raise an error with a replacement."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xee_tf
from tests.rasters import random_band, raster
from xee_tf.export.options import ExportOptions
from xee_tf.options import nested_names, one_of

SHAPE = (40, 60)


def scene() -> xr.Dataset:
    return raster({"B4": random_band(SHAPE), "B3": random_band(SHAPE, seed=1)})


def test_one_of() -> None:
    for value in ("near", None, np.str_("near")):
        one_of("resampling", value, ("far", "near", None))
    for value in ("Near", "", 0, False, ["near"], np.array(["near", "far"])):
        with pytest.raises(xee_tf.OptionError, match="resampling must be 'far', 'near' or None; got "):
            one_of("resampling", value, ("far", "near", None))


@pytest.mark.parametrize("kernel", [0, (3, -2)])
def test_readers_check_kernel_size(kernel: Any, tmp_path: Any) -> None:
    result = scene().tfexport(tmp_path / "s", patch_dimensions=20)
    for call in (
        lambda: xee_tf.open_image(result, kernel_size=kernel),
        lambda: xee_tf.upload_image(None, result, tmp_path / "s.tif", kernel_size=kernel),
    ):
        with pytest.raises(xee_tf.OptionError, match="kernel_size must be at least 1 pixel"):
            call()


# -- Supported options -----------------------------------------------------------------------------

OURS = {"patch_dimensions": (20, 10), "kernel_size": 4, "default_value": -1, "masked_threshold": 1}
SPELLINGS = {
    "camel case": {"patchDimensions": [20, 10], "kernelSize": 4, "defaultValue": -1, "maskedThreshold": 1},
    "flat": {
        "tfrecordPatchDimensions": [20, 10],
        "tfrecordKernelSize": 4,
        "tfrecordDefaultValue": -1,
        "tfrecordMaskedThreshold": 1,
    },
    "nested": {"formatOptions": {"patchDimensions": [20, 10], "kernelSize": 4, "defaultValue": -1}},
    "our name": {"format_options": {"patchDimensions": [20, 10], "kernelSize": 4, "defaultValue": -1}},
    "mixed": {"patchDimensions": [20, 10], "kernel_size": 4, "formatOptions": {"tfrecordDefaultValue": -1}},
    "defaults of a task": {**OURS, "scale": None, "folder": None, "region": None, "formatOptions": None},
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("file_format", ["TFRecord", "TFRECORD", "TF_RECORD", "TF_RECORD_IMAGE", None])
def test_all_spellings_give_same_plan(spelling: str, file_format: str | None) -> None:
    expected = scene().tfexport.plan("out/scene", **OURS)
    found = scene().tfexport.plan("out/scene", fileFormat=file_format, **SPELLINGS[spelling])
    assert (found.grid, found.options, found.prefix) == (expected.grid, expected.options, expected.prefix)
    assert xee_tf.plan_export(scene(), "out/scene", **SPELLINGS[spelling]).options == expected.options


def test_all_options_in_all_spellings() -> None:
    values: dict[str, Any] = {
        **{"patchDimensions": 20, "kernelSize": 1, "compressed": False, "maxFileSize": 10**6},
        **{"defaultValue": 1, "tensorDepths": {"B4": 2}, "sequenceData": True, "collapseBands": True},
        **{"maskedThreshold": 0.5},
    }
    names = nested_names(ExportOptions)
    assert set(values) == set(names)
    cube = scene()[["B4"]].expand_dims(time=3)
    options = {
        cube.tfexport.plan(**given).options.masked_threshold: cube.tfexport.plan(**given).options
        for given in (
            values,
            {names[name]: value for name, value in values.items()},
            {f"tfrecord{name[0].upper()}{name[1:]}": value for name, value in values.items()},
            {"format_options": values},
        )
    }
    assert len(options) == 1
    assert options[0.5].sequence_data
    assert options[0.5].collapse_bands


def test_file_name_prefix_is_destination(tmp_path: Any) -> None:
    for number, export in enumerate(
        (scene().tfexport, lambda **given: xee_tf.export_image(scene(), **given))
    ):
        result = export(fileNamePrefix=str(tmp_path / f"scene{number}"), patchDimensions=20)
        assert str(result.mixer) == str(tmp_path / f"scene{number}-mixer.json")


def test_other_options_in_camel_case(tmp_path: Any) -> None:
    dated = scene().expand_dims(time=np.array(["2021-03-01"], "M8[ns]"))
    result = dated.tfexport(tmp_path / "s", splitDim="time", patchDimensions=20, ifExists="overwrite")
    assert list(result) == ["20210301"]


def test_tables() -> None:
    sites = pd.DataFrame({"B4": [1.0, 2.0], "B3": [3.0, 4.0]})
    xee_tf.export_table(collection=sites, fileNamePrefix="memory://pasting/sites", fileFormat="TFRecord")
    assert list(xee_tf.open_table("memory://pasting/sites")) == ["B4", "B3"]
    xee_tf.export_table(
        sites, fileNamePrefix="memory://pasting/one", fileFormat="TF_RECORD_TABLE", selectors="B3"
    )
    assert list(xee_tf.open_table("memory://pasting/one")) == ["B3"]
    result = scene().tfexport.table(
        None, "memory://pasting/samples", numPixels=7, dropNulls=False, seed=3, fileFormat="TFRecord"
    )
    assert result.records == 7


def test_prediction_writer(tmp_path: Any) -> None:
    result = scene().tfexport(tmp_path / "scene", patch_dimensions=20)
    with xee_tf.PredictionWriter(  # type: ignore[call-arg]
        tmp_path / "p.tfrecord", result.mixer, featureTypes="band", ifExists="overwrite"
    ) as writer:
        writer.write(np.ones((writer.total, 20, 20), "uint8"))
    assert writer.feature_types == "band"
    with pytest.raises(xee_tf.OptionError, match=r"Unknown options .*mean 'feature_types'"):
        xee_tf.PredictionWriter(tmp_path / "q", result.mixer, featureType="band")  # type: ignore[call-arg]


def test_models_and_predictions() -> None:
    camel = xee_tf.Model.from_function(np.sum, inputTileSize=[16, 16], outputBands=["p"], fixInputProj=None)
    snake = xee_tf.Model.from_function(np.sum, input_tile_size=16, output_bands=["p"])
    assert camel == snake
    model = xee_tf.Model.from_function(lambda tile: tile[..., 0], inputTileSize=16, outputBands=["p"])
    found = model.predictImage(scene(), merge=False, batchSize=2, skipMasked=False)
    np.testing.assert_array_equal(found["p"], scene()["B4"])


# -- Unsupported options ---------------------------------------------------------------------------

PASTED = {
    "description": "scene",
    "folder": "exports",
    "fileNamePrefix": "scene",
    "scale": 30,
    "crsTransform": [30, 0, 0, 0, -30, 0],
    "maxPixels": 1e13,
    "shardSize": 256,
    "fileDimensions": 1024,
    "skipEmptyTiles": True,
    "fileFormat": "TFRecord",
    "formatOptions": {"patchDimensions": [20, 20]},
    "priority": 100,
}


def test_one_error_lists_all_unsupported_options(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for export in (scene().tfexport, scene().tfexport.plan):
        with pytest.raises(xee_tf.OptionError) as caught:
            export(image="image", crs="EPSG:4326", **PASTED)
        lines = str(caught.value).splitlines()
        taken = {"fileNamePrefix", "fileFormat", "formatOptions"}
        assert {line.split(":")[0] for line in lines[1:]} == {
            f"- {name}" for name in {*PASTED, "image", "crs"} - taken
        }
        assert "ds.rio.reproject" in str(caught.value)
        assert "nothing is reprojected" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_all_parameters_of_earth_engine_exports(tmp_path: Any) -> None:
    pytest.importorskip("ee")
    from ee import batch

    sites = pd.DataFrame({"a": [1.0]})
    for kind, export in (
        (batch.Export.image, lambda **given: xee_tf.export_image(scene(), tmp_path / "s", **given)),
        (batch.Export.table, lambda **given: xee_tf.export_table(sites, tmp_path / "s", **given)),
    ):
        destinations = [getattr(kind, name) for name in dir(kind) if name.startswith("to")]
        names = {name for task in destinations for name in inspect.signature(task).parameters}
        # Tasks for maps and BigQuery have further parameters.
        for name in names - {"kwargs", "image", "collection", "table", "selectors"}:
            if name in ("fileFormat", "formatOptions", "region", "crs"):
                continue
            with pytest.raises(xee_tf.OptionError, match=rf"(- {name}: |'destination' is given twice)"):
                export(**{name: 3})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("scale", "keeps its pixel grid"),
        ("max_pixels", "no limit"),
        ("maxPixels", "no limit"),
        ("bucket", "'s3://bucket/scene'"),
        ("outputBucket", "'s3://bucket/scene'"),
        ("crs_transform", "reproject"),
        ("skip_empty_tiles", "masked_threshold=0.999"),
        ("selectors", r"ds\[\['B4', 'B3'\]\]"),
        ("overwrite", "if_exists='overwrite'"),
        ("tfrecordScale", "Unknown file format options"),
    ],
)
def test_replacement_of_unsupported_option(name: str, instead: str) -> None:
    with pytest.raises(xee_tf.OptionError, match=f"(?s){name}.*{instead}|{instead}.*{name}"):
        scene().tfexport.plan(**{name: 1})


@pytest.mark.parametrize(
    ("file_format", "instead"),
    [
        ("GeoTIFF", r"rio\.to_raster"),
        ("GEO_TIFF", r"rio\.to_raster"),
        ("NPY", "np.save"),
        ("PNG", "exports are TFRecord"),
    ],
)
def test_unsupported_format(file_format: str, instead: str) -> None:
    with pytest.raises(xee_tf.OptionError, match=f"fileFormat='{file_format}' is not supported.*{instead}"):
        scene().tfexport.plan(fileFormat=file_format)
    with pytest.raises(xee_tf.OptionError, match=f"file_?[fF]ormat='{file_format}' is not supported"):
        xee_tf.export_image(scene(), "out/scene", file_format=file_format)


def test_unsupported_table_format() -> None:
    with pytest.raises(xee_tf.OptionError, match=r"fileFormat='CSV' is not supported.*to_csv"):
        xee_tf.export_table(pd.DataFrame({"a": [1.0]}), "out/t", fileFormat="CSV")


DUPLICATES: list[tuple[dict[str, Any], str, str]] = [
    ({"patch_dimensions": (256, 256), "patchDimensions": 20}, "patch_dimensions", "patchDimensions"),
    ({"kernel_size": 1, "format_options": {"kernelSize": 1}}, "kernel_size", "kernelSize"),
    ({"tfrecordKernelSize": 1, "kernelSize": 1}, "tfrecordKernelSize", "kernelSize"),
    ({"formatOptions": {"kernelSize": 1, "tfrecordKernelSize": 1}}, "kernelSize", "tfrecordKernelSize"),
    (
        {"formatOptions": {"kernelSize": 1}, "format_options": {"compressed": True}},
        "format_options",
        "formatO",
    ),
    ({"destination": "a", "fileNamePrefix": "b"}, "destination", "fileNamePrefix"),
]


@pytest.mark.parametrize(("options", "first", "second"), DUPLICATES)
def test_option_in_two_spellings(options: dict[str, Any], first: str, second: str) -> None:
    with pytest.raises(xee_tf.OptionError, match=f"Both '{first}' and '{second}.*specified"):
        scene().tfexport.plan(**options)
    with pytest.raises(
        xee_tf.OptionError, match="'destination' is given twice: by position and as 'fileNamePrefix"
    ):
        scene().tfexport("a", fileNamePrefix="b")


def test_model_option_in_two_spellings() -> None:
    for options in (
        {"inputTileSize": 8, "input_tile_size": 8},
        {"output_bands": ["p"], "outputBands": ["p"]},
    ):
        first, second = options
        with pytest.raises(xee_tf.OptionError, match=f"Both '{first}' and '{second}'.*twice"):
            xee_tf.Model.from_function(np.sum, **options)  # type: ignore[arg-type]
    with pytest.raises(xee_tf.OptionError, match="Both 'maxPayloadBytes' and 'max_payload_bytes'"):
        xee_tf.Model.from_tf_serving("http://m:8501", "m", maxPayloadBytes=9, max_payload_bytes=9)  # type: ignore[call-arg]


# -- Misspelled options ----------------------------------------------------------------------------


def misspelled() -> Any:
    image, sites = scene(), pd.DataFrame({"a": [1.0]})
    function = xee_tf.Model.from_function(lambda tile: tile[..., 0], input_tile_size=16, output_bands=["p"])
    serving = xee_tf.Model.from_tf_serving
    yield "patch_dimension", "patch_dimensions", image.tfexport.plan
    yield "patchDimension", "patch_dimensions", image.tfexport.plan
    yield "patchdimensions", "patch_dimensions", image.tfexport.plan
    yield "kernelsize", "kernel_size", lambda **given: image.tfexport("out/s", **given)
    yield "format_option", "format_options", lambda **given: xee_tf.export_image(image, "out/s", **given)
    yield "ifexist", "if_exists", lambda **given: xee_tf.export_table(sites, "out/s", **given)
    yield "class_bands", "class_band", lambda **given: image.tfexport.table(None, "out/s", **given)
    yield "input_tilesize", "input_tile_size", lambda **given: xee_tf.Model.from_function(np.sum, **given)
    yield "outputBand", "output_bands", lambda **given: xee_tf.Model.from_function(np.sum, **given)
    yield "max_concurency", "max_concurrency", lambda **given: serving("http://m:8501", "m", **given)
    yield "payloadformat", "payload_format", lambda **given: serving("http://m:8501", "m", **given)
    yield "batchsize", "batch_size", lambda **given: function.predict_image(image, **given)
    yield "augmentation", "augment", lambda **given: function.predict_image(image, **given)
    yield "batch_sizes", "batch_size", lambda **given: function.predict_properties(sites, **given)
    yield "if_exist", "if_exists", lambda **given: xee_tf.predict_to_zarr(function, image, "out/z", **given)
    yield (
        "outputgrid",
        "output_grid",
        lambda **given: xee_tf.predict_to_zarr(function, image, "out/z", **given),
    )


@pytest.mark.parametrize("number", range(len(list(misspelled()))))
def test_did_you_mean(number: int, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    wrong, right, call = list(misspelled())[number]
    with pytest.raises(xee_tf.OptionError, match=f"'{wrong}'.*Did you mean '{right}'\\?"):
        call(**{wrong: 1})
    assert not list(tmp_path.iterdir())


def test_unknown_options_error() -> None:
    with pytest.raises(xee_tf.OptionError) as caught:
        scene().tfexport.plan(zzz=1, storage_option={"secret": "hunter2"}, scale=30)
    message = str(caught.value)
    assert (
        "Unknown export options: {'zzz': 1, 'storage_option': {...}}. Available options: patch_dimensions,"
        in message
    )
    assert "- scale: " in message
    assert "hunter2" not in message
    with pytest.raises(xee_tf.OptionError, match="must be a mapping, such as"):
        scene().tfexport.plan(format_options=[256, 256])
    with pytest.raises(xee_tf.OptionError, match=r"Unknown file format options: \{'3': 4\}"):
        scene().tfexport.plan(format_options={3: 4})


def test_options_of_models_and_predictions() -> None:
    model = xee_tf.Model.from_function(lambda tile: tile[..., 0], input_tile_size=16, output_bands=["p"])
    with pytest.raises(xee_tf.OptionError, match="- inputTileSize: it is an option of the model"):
        model.predict_image(scene(), inputTileSize=8)  # type: ignore[call-arg]
    with pytest.raises(xee_tf.OptionError, match="- merge: the store contains only predictions"):
        xee_tf.predict_to_zarr(model, scene(), "out/z.zarr", merge=True)  # type: ignore[call-arg]
    with pytest.raises(xee_tf.OptionError, match=r"Unknown upload options: \{'bandz': 1\}.*mean 'bands'"):
        xee_tf.upload_image(None, "out/z", bandz=1)  # type: ignore[call-arg]
    with pytest.raises(xee_tf.OptionError, match="- scale: predictions have the pixels of the image"):
        xee_tf.Model.from_function(np.sum, scale=30)  # type: ignore[call-arg]


WRITERS = [
    *("export_image", "plan_export", "export_table", "sample_table", "upload_image", "upload_table"),
    *("to_cog", "predict_to_cog", "predict_to_zarr", "PredictionWriter"),
]
# Names of `destination` in version 0.1, which issue a DeprecationWarning (see tests/test_deprecated.py), and
# the files that upload_table reads.
ACCEPTED = {(name, "path") for name in (*WRITERS[:4], "PredictionWriter", "upload_table")} | {
    ("predict_to_zarr", "store")
}


@pytest.mark.parametrize("wrong", ["overwrite", "path", "store"])
@pytest.mark.parametrize("name", WRITERS)
def test_other_names_of_a_destination_are_explained(name: str, wrong: str) -> None:
    if (name, wrong) not in ACCEPTED:
        instead = "if_exists='overwrite'" if wrong == "overwrite" else "the option is named destination"
        with pytest.raises(xee_tf.OptionError, match=f"- {wrong}: .*{instead}"):
            getattr(xee_tf, name)(**{wrong: "out/z"})


def test_functions_without_a_destination_do_not_explain_its_names() -> None:
    with pytest.raises(xee_tf.OptionError, match=r"Unknown reading options: \{'overwrite': True\}"):
        xee_tf.open_image("out/scene", overwrite=True)  # type: ignore[call-arg]


# -- Signatures ------------------------------------------------------------------------------------


def test_signatures() -> None:
    export = inspect.signature(xee_tf.export_image).parameters
    for function in (xee_tf.plan_export, scene().tfexport, scene().tfexport.plan):
        shown = inspect.signature(function).parameters
        assert list(shown)[-len(export) + 2 :] == list(export)[2:]
    assert next(iter(inspect.signature(scene().tfexport.table).parameters)) == "where"
    assert "properties" in inspect.signature(scene().tfexport.table).parameters
    assert re.match("Export a raster", inspect.getdoc(xee_tf.TFExportAccessor.__call__) or "")
    assert scene().tfexport.plan(edge="pad").prefix == ""


# -- Reading and predictions -------------------------------------------------------------------------


def test_spelling_of_reading_options(tmp_path: Any) -> None:
    pytest.importorskip("tensorflow")
    result = scene().tfexport(tmp_path / "s", patch_dimensions=20, kernel_size=4)
    xr.testing.assert_identical(xee_tf.open_image(result, kernelSize=4), xee_tf.open_image(result))
    batches = xee_tf.tf_dataset(result, inputs=["B4", "B3"], batchSize=3)
    assert next(iter(batches)).shape == (3, 24, 24, 2)
    written = xee_tf.upload_image(None, result, tmp_path / "s.tif", noData=-3, ifExists="overwrite")
    with xr.open_dataset(written.path, engine="rasterio", mask_and_scale=False) as found:
        assert found.band_data.attrs["_FillValue"] == -3
    for function in (xee_tf.open_image, xee_tf.open_table, xee_tf.feature_spec):
        with pytest.raises(xee_tf.OptionError, match=r"Unknown reading options: {'kernal': 3}"):
            function(result, kernal=3)
    with pytest.raises(xee_tf.OptionError, match="patchDimensions: it is read from the mixer"):
        xee_tf.open_image(result, patchDimensions=20)


@pytest.mark.parametrize(
    "name",
    ["array_dims", "arrayDims", "input_tile_size", "inputTileSize", "bands", "overlap_is_total", "inputs"],
)
def test_model_options_in_predictions(name: str) -> None:
    model = xee_tf.Model.from_function(lambda t: t[..., 0], input_tile_size=20, output_bands=["p"])
    for call in (
        lambda: model.predict_image(scene(), **{name: ("time",)}),
        lambda: model.predict_properties(pd.DataFrame({"a": [1.0]}), **{name: ("time",)}),
    ):
        with pytest.raises(xee_tf.OptionError, match=f"{name}: it is an option of the model"):
            call()


def test_format_hints(tmp_path: Any) -> None:
    table = pd.DataFrame({"a": [1.0]})
    for name in ("formatOptions", "format_options"):
        with pytest.raises(xee_tf.OptionError, match=f"{name}: it applies to images only") as caught:
            xee_tf.export_table(table, tmp_path / "t", **{name: {"compressed": True}})
        assert "Did you mean" not in str(caught.value)
    with pytest.raises(xee_tf.OptionError, match="Did you mean 'fileFormat'"):
        scene().tfexport(tmp_path / "s", fileformat="TFRecord")


def test_input_type_override_for_missing_band() -> None:
    model = xee_tf.Model.from_function(
        lambda t: t[..., 0], input_tile_size=20, output_bands=["p"], input_type_override={"b3": "uint8"}
    )
    with pytest.raises(xee_tf.OptionError, match=r"'b3', not found in the image.*'B4', 'B3'.*mean 'B3'"):
        model.predict_image(scene())
