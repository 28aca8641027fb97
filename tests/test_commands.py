"""Commands on clusters, their JSON, their progress, and the models on servers that they take."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import redirect_stderr, redirect_stdout, suppress
from select import select

import dask
import numpy as np
import psutil
import pytest
import rasterio
from distributed import Client, LocalCluster, WorkerPlugin, default_client

import xee_tf
from tests.conftest import ROOT, needs_posix
from tests.optional import optional
from tests.rasters import random_band, raster
from tests.waiting import wait_until
from xee_tf import OptionError
from xee_tf.cli.cluster import computing_on
from xee_tf.cli.loading import declare_classes, model_at
from xee_tf.cli.options import parse_shares
from xee_tf_cli import main

gpd = optional("geopandas")

SHAPE = (60, 90)
PATCH = ["--patch-dimensions", "20", "10"]


@pytest.fixture
def scene():
    return raster({"red": random_band(SHAPE), "nir": random_band(SHAPE, "uint8", seed=1)})


@pytest.fixture
def source(scene, tmp_path):
    """Return a GeoTIFF of the scene."""
    path = tmp_path / "scene.tif"
    both = scene.astype("float32").to_array("band").rio.write_crs(scene.attrs["crs"])
    both.attrs["long_name"] = ("red", "nir")
    both.rio.to_raster(path)
    return str(path)


@pytest.fixture
def points(scene, tmp_path):
    """Return a file of points, and their values of the red band."""
    rows, columns = np.array([3, 40, 41]), np.array([5, 80, 2])
    x, y = 700_000 + 30 * (columns + 0.5), 5_000_000 - 30 * (rows + 0.5)
    frame = gpd.GeoDataFrame({"site": [4, 5, 6]}, geometry=gpd.points_from_xy(x, y), crs=scene.attrs["crs"])
    frame.to_file(tmp_path / "points.gpkg")
    return str(tmp_path / "points.gpkg"), scene.red.values[rows, columns]


def read_json(capsys):
    """Return the JSON object that a command has printed, which is the only output."""
    return json.loads(capsys.readouterr().out)


# -- Clusters ------------------------------------------------------------------------------------------


def test_results_on_a_cluster_are_those_of_threads(source, points, scene, tmp_path, capfd, monkeypatch):
    """Its workers run in another folder."""
    onnx = pytest.importorskip("onnxruntime.datasets")
    scene.tfexport(tmp_path / "p", patch_dimensions=(30, 20))
    small = ["--bands", "red", "--output-bands", "p=float32", "--chunk", "30"]
    commands = {
        "s-00000.tfrecord.gz": ["export", "../scene.tif", "s", *PATCH, "--chunk", "30"],
        "t.tfrecord.gz": ["sample", source, "t", "--where", "../points.gpkg"],
        "u.tif": ["upload", "image", "../p", "../p", "u.tif"],
        "v.tif": ["predict", onnx.get_example("sigmoid.onnx"), "../scene.tif", "v.tif", *small],
    }
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0") as cluster:
        with Client(cluster) as client:
            client.run(os.chdir, "/")
        for where, flags in ("threads", []), ("cluster", ["--scheduler", cluster.scheduler_address]):
            (tmp_path / where).mkdir()
            monkeypatch.chdir(tmp_path / where)
            for command in commands.values():
                assert main([*command, "--quiet", *flags]) == 0
        with Client(cluster) as client:
            ran = client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.task_prefixes))
    assert ran > len(commands)
    for name in commands:
        threads, clustered = ((tmp_path / where / name).read_bytes() for where in ("threads", "cluster"))
        assert threads == clustered
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--scheduler", "tcp://127.0.0.1:9"], "--scheduler tcp://127.0.0.1:9 cannot be reached"),
        (["--scheduler", "nonsense://a"], "--scheduler nonsense://a cannot be reached: "),
        (["--scheduler", "no.json"], "--scheduler no.json cannot be reached: "),
        (["--workers", "0"], "--workers must be a whole number of at least 1"),
        (["--workers", "2", "--scheduler", "a"], "--scheduler and --workers exclude each other"),
    ],
)
def test_clusters_that_cannot_be_used(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("xee_tf.cli.cluster._SECONDS", "500ms")
    assert main(["export", "a.tif", str(tmp_path / "s"), *flags]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert dask.config.get("scheduler", None) is None
    with pytest.raises(ValueError, match="No clients found"):  # later commands compute with threads
        default_client()


@pytest.mark.parametrize("how", ["interrupted", pytest.param("complete", marks=pytest.mark.long)])
def test_new_workers_are_stopped(how, tmp_path, capsys):
    """At once if the command is interrupted: then they do not close themselves."""
    closed = tmp_path / "closed"

    class Closing(WorkerPlugin):
        def teardown(self, worker):
            closed.touch()

    with suppress(KeyboardInterrupt), computing_on(workers=1):
        client = Client.current()
        client.register_plugin(Closing())
        [pid] = client.run(os.getpid).values()
        os.kill(pid, signal.SIGINT)  # as Ctrl-C in a terminal, which is sent to all its processes
        assert client.submit(os.getpid).result(timeout=60) == pid
        if how == "interrupted":
            raise KeyboardInterrupt
    assert closed.exists() == (how == "complete")
    assert client.status == "closed"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert capsys.readouterr().err.startswith("Started 1 worker")


@needs_posix
def test_ctrl_c_while_workers_start_is_not_lost():
    """It is raised when they have started, so that they can be stopped."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        with pytest.raises(KeyboardInterrupt), computing_on(workers=1):
            pytest.fail("The body began.")
    finally:
        signal.signal(signal.SIGINT, before)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
    commands = [" ".join(each.cmdline()) for each in psutil.Process().children()]
    assert not [each for each in commands if "spawn_main" in each]


# -- JSON ----------------------------------------------------------------------------------------------


def test_json_of_exports(source, tmp_path, capsys):
    prefix = str(tmp_path / "s")
    assert main(["export", source, prefix, *PATCH, "--kernel-size", "4", "--json"]) == 0
    [found] = read_json(capsys)["exports"]
    assert (found["records"], found["rows"], found["columns"]) == (24, 6, 4)
    assert (found["patch_dimensions"], found["size_with_margin"]) == ([20, 10], [24, 14])
    assert found["mixer"] == f"{prefix}-mixer.json"
    [file] = found["files"]
    assert file["path"] == f"{prefix}-00000.tfrecord.gz"
    assert found["statistics"]["red"]["count"] == 60 * 80

    assert main(["verify", prefix, "--json"]) == 0
    assert read_json(capsys) | {"bytes": 0} == {
        "ok": True,
        "names": [f"{prefix}-mixer.json"],
        "files": 1,
        "records": 24,
        "bytes": 0,
        "described": True,
        "problems": [],
    }
    assert main(["inspect", prefix, "--json"]) == 0
    assert read_json(capsys)["names"] == ["red", "nir"]
    assert main(["upload", "image", prefix, prefix, str(tmp_path / "u.zarr"), "--json"]) == 0
    assert read_json(capsys) == {"destination": str(tmp_path / "u.zarr")}

    with open(file["path"], "ab") as damaged:
        damaged.write(b"x")
    assert main(["verify", prefix, "--json"]) == 1
    captured = capsys.readouterr()
    assert not json.loads(captured.out)["ok"]
    assert captured.err.startswith("xee-tf verify: ")


def test_quiet_commands_print_nothing(source, tmp_path, capsys):
    assert main(["export", source, str(tmp_path / "s"), *PATCH, "--quiet"]) == 0
    assert main(["verify", str(tmp_path / "s"), "--quiet"]) == 0
    assert main(["inspect", str(tmp_path / "s"), "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")
    assert main(["verify", str(tmp_path / "s"), "--quiet", "--json"]) == 0
    assert read_json(capsys)["ok"]


def test_what_libraries_print_is_not_in_the_json(monkeypatch, capsys):
    def loud(*_, **__):
        print("loud")
        return xee_tf.Verification(("s",), 1, 0, 0, True)

    monkeypatch.setattr(xee_tf, "verify", loud)
    assert main(["verify", "s", "--json"]) == 0
    captured = capsys.readouterr()
    assert (json.loads(captured.out)["ok"], captured.err) == (True, "loud\n")


# -- Standard output and standard error --------------------------------------------------------------------


@pytest.fixture
def gone():
    """Return a stream whose reader has gone, as ``head`` does."""
    reader, writer = os.pipe()
    os.close(reader)
    with suppress(BrokenPipeError), open(writer, "w") as stream:
        yield stream


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_reader_that_has_gone_is_no_error(flags, source, tmp_path, gone, capsys):
    """The command does its work, and its status is that of the work."""
    prefix = str(tmp_path / "s")
    with redirect_stdout(gone):
        assert main(["export", source, prefix, *PATCH, *flags]) == 0
    assert main(["verify", prefix, "--quiet"]) == 0
    with open(f"{prefix}-00000.tfrecord.gz", "ab") as damaged:
        damaged.write(b"x")
    with redirect_stderr(gone):
        assert main(["verify", prefix, "--quiet"]) == 1
    assert capsys.readouterr() == ("", "")


def test_reader_of_the_help_that_has_gone(gone):
    code = "import sys, xee_tf_cli; sys.exit(xee_tf_cli.main(['--help']))"  # rich prints no more in a process
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, stdout=gone, stderr=subprocess.PIPE, check=False)
    assert (run.returncode, run.stderr) == (0, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_result_that_cannot_be_printed_is_an_error(source, tmp_path, capsys):
    with open("/dev/full", "w") as full, redirect_stdout(full):
        assert main(["export", source, str(tmp_path / "s"), *PATCH]) == 1
    message = (
        "cannot be printed to standard output: No space left on device. If the command writes files, they"
    )
    assert message in capsys.readouterr().err
    assert xee_tf.verify(tmp_path / "s").ok


@pytest.mark.parametrize(("encoding", "size"), [("ascii", b"20 x 10"), ("utf-8", "20 × 10".encode())])
def test_characters_that_a_terminal_lacks(encoding, size, source, tmp_path):
    """Names of files that are no text are printed as they are."""
    with io.TextIOWrapper(io.BytesIO(), encoding) as stream, redirect_stdout(stream):
        assert main(["plan", "export", source, str(tmp_path / "a\udcff\u0416"), *PATCH]) == 0
        assert stream.errors == "strict"
        printed = stream.buffer.getvalue()
    assert size in printed
    name = "\u0416".encode(encoding, "backslashreplace")
    assert os.fsencode(tmp_path) + b"/a\xff" + name in printed


def test_what_is_meant_for_a_closed_standard_error_is_not_printed(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.stderr", None)
    assert main(["inspect", str(tmp_path / "nothing")]) == 1
    assert sys.stderr is None
    assert capsys.readouterr().out == ""


def test_files_do_not_get_the_numbers_of_closed_streams():
    code = (
        "import os, sys, xee_tf_cli\nfor number in range(3): os.close(number)\n"
        "status = xee_tf_cli.main(['--version-of-nothing'])\n"
        "os._exit(10 * status + (open(os.devnull).fileno() < 3))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 20


# -- Plans, samples and splits -------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["export", "split"])
def test_plan_says_what_the_command_then_writes(command, source, tmp_path, capsys):
    tokens = [command, source, str(tmp_path / "out" / "s"), "--patch-dimensions", "6", "--kernel-size", "2"]
    assert main(["plan", *tokens]) == 0
    text = capsys.readouterr().out
    assert main(["plan", *tokens, "--json"]) == 0
    planned = read_json(capsys)
    assert not (tmp_path / "out").exists()
    assert main([*tokens, "--json"]) == 0
    written = read_json(capsys)
    for name in ("rows", "columns", "patch_dimensions", "size_with_margin", "crs", "bounds"):
        assert all(each[name] == planned[name] for each in written["exports"])
    assert planned["exports"] == len(written["exports"])
    assert planned["records"] == written["exports"][0]["records"]
    assert planned["bands"] == ["red", "nir"]
    assert re.search(rf"(patches|selected) +{planned['patches']} ", text)
    if command == "split":
        assert text.startswith("<xee_tf.PatchSplit")
        assert (planned["sides"], planned["left_out"]) == (written["sides"], written["left_out"])


@pytest.mark.parametrize("command", ["export", "split"])
def test_every_option_of_an_export_arrives(command, monkeypatch, tmp_path, source, capsys):
    """Each is passed on to the function of Python with its name."""
    pytest.importorskip("geopandas")  # for the index
    given = {}
    plan_export = xee_tf.plan_export

    def recorded(image, *args, **options):
        given.update(options, bands=list(image))
        return plan_export(image, *args, **options)

    monkeypatch.setattr(xee_tf, "plan_export", recorded)
    values = {
        "bands": ("nir", ["nir"]),
        "patch_dimensions": ("5 4", (5, 4)),
        "kernel_size": ("3 5", (3, 5)),
        "region": ("700300 4998980 701500 4999700", (700300, 4998980, 701500, 4999700)),
        "region_crs": ("EPSG:32633", "EPSG:32633"),
        "compressed": (None, False),
        "max_file_size": ("12345", 12345),
        "default_value": ("7", 7),
        "masked_threshold": ("0.5", 0.5),
        "index": ("", True),
        "statistics": (None, False),
        "feature_types": ("band", "band"),
        "crs": ("EPSG:32633", "EPSG:32633"),
        "resume": ("", "resume"),
    }
    flags = []
    for name, (text, _) in values.items():
        flag = {"compressed": "compress"}.get(name, name.replace("_", "-"))
        flags += [f"--{'no-' if text is None else ''}{flag}", *(text or "").split()]
    assert main(["plan", command, source, str(tmp_path / "s"), *flags]) == 0
    found = given | {"resume": given["if_exists"]}
    assert {name: found[name] for name in values} == {name: value for name, (_, value) in values.items()}


def test_sample_at_points(source, points, tmp_path, capsys):
    path, expected = points
    prefix = str(tmp_path / "t")
    assert main(["sample", source, prefix, "--where", path, "--bands", "red", "--json"]) == 0
    found = read_json(capsys)
    assert (found["records"], found["path"]) == (3, f"{prefix}.tfrecord.gz")
    names = [column["name"] for column in found["columns"]]
    assert names == ["red", "site", "longitude", "latitude"]
    table = xee_tf.open_table(found["path"])
    np.testing.assert_array_equal(table.red, expected)
    np.testing.assert_array_equal(table.site, [4, 5, 6])

    frame = gpd.read_file(path)
    csv = str(tmp_path / "points.csv")
    frame.assign(x=frame.geometry.x, y=frame.geometry.y).drop(columns="geometry").to_csv(csv, index=False)
    again = ["sample", source, prefix, "--collection", csv, "--no-geometry", "--overwrite"]
    assert main([*again, "--selectors", "red,site"]) == 0
    table = xee_tf.open_table(found["path"])
    assert list(table) == ["red", "site"]
    np.testing.assert_array_equal(table.red, expected)


def test_sample_at_random(source, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    prefix = str(tmp_path / "t")
    assert main(["sample", source, prefix, "--numPixels", "7", "--seed", "3"]) == 0
    assert "7 × 4 columns" in capsys.readouterr().out
    by_class = ["--n", "10=2,20=3", "--class-band", "nir", "--overwrite"]
    assert main(["sample", source, prefix, *by_class]) == 0
    assert sorted(xee_tf.open_table(f"{prefix}.tfrecord.gz").nir) == [10, 10, 20, 20, 20]
    assert main(["sample", source, prefix]) == 1
    assert "pass --where points.gpkg, --n 1000 for pixels at random" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.gpkg", None, "none.gpkg: No such file"),
        ("bad.gpkg", "no file", "bad.gpkg cannot be opened as points or polygons: "),
        (
            "bad.csv",
            "a,b\n1,2\n",
            "bad.csv has the columns a, b; expected longitude and latitude, or x and y.",
        ),
    ],
)
def test_files_that_are_no_points(name, text, message, source, tmp_path, capsys):
    pytest.importorskip("geopandas")
    if text is not None:
        (tmp_path / name).write_text(text)
    assert main(["sample", source, str(tmp_path / "t"), "--where", str(tmp_path / name)]) == 1
    assert message in capsys.readouterr().err


def test_split_by_shares(source, scene, tmp_path, capsys):
    prefix = str(tmp_path / "s")
    options = ["--patch-dimensions", "5", "--sides", "train=0.6,test=0.4", "--block", "2", "--seed", "3"]
    assert main(["split", source, prefix, *options, "--json"]) == 0
    found = read_json(capsys)
    split = xee_tf.split_patches(
        xee_tf.plan_export(scene, patch_dimensions=5), {"train": 0.6, "test": 0.4}, block=2, seed=3
    )
    assert found["sides"] == {side: len(chosen) for side, chosen in split.items()}
    assert [each["label"] for each in found["exports"]] == ["train", "test"]
    assert [each["records"] for each in found["exports"]] == [len(chosen) for chosen in split.values()]
    assert main(["export", source, str(tmp_path / "e"), *options[:2], "--split", "train=0.6,test=0.4"]) == 0
    assert re.search("2 exports, .*\n +train +.*e-train-image.tfexport", capsys.readouterr().out)
    assert main(["plan", "split", source, prefix, *options, "--overwrite"]) == 0
    out = capsys.readouterr().out
    assert "left out" in out
    assert "exports" in out


def test_split_by_polygons(source, tmp_path, capsys):
    pytest.importorskip("geopandas")
    from shapely import box

    halves = [box(700_000, 4_998_200, 701_350, 5_000_000), box(701_350, 4_998_200, 702_700, 5_000_000)]
    frame = gpd.GeoDataFrame({"side": ["west", "east"]}, geometry=halves, crs="EPSG:32633")
    frame.to_file(tmp_path / "sides.gpkg")
    options = ["--patch-dimensions", "15", "--sides", str(tmp_path / "sides.gpkg"), "--column", "side"]
    assert main(["split", source, str(tmp_path / "s"), *options, "--json"]) == 0
    assert read_json(capsys)["sides"] == {"west": 12, "east": 12}


def test_sample_of_patches(source, tmp_path, capsys):
    assert main(["export", source, str(tmp_path / "s"), *PATCH, "--sample", "5", "--json"]) == 0
    [found] = read_json(capsys)["exports"]
    assert (found["records"], found["mixer"]) == (5, None)
    assert main(["export", source, str(tmp_path / "t"), *PATCH, "--sample", "0.5", "--json"]) == 0
    assert read_json(capsys)["exports"][0]["records"] == 12


def test_shares():
    for text in ("train", "=1", "train=", "train=x", "train=0.7,", "a=1 b=2"):
        with pytest.raises(ValueError, match=r"expected NAME=SHARE, such as train=0.8,test=0.2; got"):
            parse_shares([text])


# -- Models on servers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "connector"),
    [
        ("http://m:8501/v1/models/a", "TensorFlow Serving http://m:8501, model 'a'"),
        (
            "http://m/x/v1/models/a/versions/3:predict",
            "TensorFlow Serving http://m/x, version 3 of model 'a'",
        ),
        ("https://m/v1/models/a/labels/new", "TensorFlow Serving https://m, version 'new' of model 'a'"),
        ("grpc://m:8500/a", "TensorFlow Serving grpc://m:8500, model 'a'"),
        ("grpcs://m/a/versions/2", "TensorFlow Serving grpcs://m:443, version 2 of model 'a'"),
        ("projects/p/locations/l/endpoints/3", "Vertex AI, projects/p/locations/l/endpoints/3"),
        (
            "https://h/v1/projects/p/locations/l/endpoints/3",
            "Vertex AI at https://h, projects/p/locations/l/endpoints/3",
        ),
        (
            "http://127.0.0.1:1/v1/projects/p/models/m/versions/v",
            "AI Platform http://127.0.0.1:1, projects/p/models/m/versions/v",
        ),
    ],
)
def test_addresses_of_servers(address, connector):
    pytest.importorskip("grpc")
    pytest.importorskip("google.auth")
    assert str(model_at(address).connector) == connector


def test_route_in_the_address():
    pytest.importorskip("google.auth")
    endpoint = "https://h/v1/projects/p/locations/l/endpoints/3"
    assert model_at(f"{endpoint}:rawPredict").connector.address == f"{endpoint}:rawPredict"
    assert model_at(endpoint).connector.address == f"{endpoint}:predict"


@pytest.mark.parametrize(
    ("address", "options", "message"),
    [
        (
            "http://m:8501",
            {},
            "the address of a server: add the name of a model, http://m:8501/v1/models/NAME",
        ),
        ("grpc://m:8500", {}, "add the name of a model, grpc://m:8500/NAME"),
        (
            "a.keras",
            {"hosted": {"timeout": 3}},
            "--timeout is only for models on servers, and a.keras is none",
        ),
        ("a.onnx", {"signature": "s"}, "--signature is for SavedModels and models on servers"),
    ],
)
def test_models_that_are_not_as_they_are_named(address, options, message):
    with pytest.raises(OptionError, match=re.escape(message)):
        model_at(address, **options)


@pytest.mark.long
def test_predict_with_a_server(source, scene, tmp_path, capsys):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("starlette")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 2), tf.float32, "pixels")])
    def predict(pixels):
        return {"sum": pixels[..., 0] + pixels[..., 1]}

    tf.saved_model.save(tf.Module(), tmp_path / "total", signatures=predict)
    flags = ["--input-tile-size", "30", "--price", "2000000"]
    with xee_tf.serve(tmp_path / "total") as server:
        endpoint = f"{server.url}/v1/projects/p/locations/l/endpoints/total:rawPredict"
        vertex = ["--credentials", "none", "--payload-format", "GRPC_TF_TENSORS", "--output-bands", "sum"]
        vertex += ["--input-name", "pixels"]
        for number, (address, more) in enumerate(
            [
                (f"{server.url}/v1/models/total", []),
                (f"grpc://{server.grpc}/total", ["--max-concurrency", "2"]),
                (endpoint, vertex),
            ]
        ):
            target = str(tmp_path / f"{number}.tif")
            command = [address, source, target, *flags, *more]
            assert main(["plan", "predict", *command, "--json"]) == 0
            planned = read_json(capsys)
            assert (planned["tiles"], planned["tile_size"]) == (6, [30, 30])
            assert planned["cost"] == 2 * planned["requests"]
            assert main(["predict", *command, "--json"]) == 0
            found = read_json(capsys)
            assert (found["destination"], found["retries"]) == (target, 0)
            assert found["cost"] == 2 * found["requests"] > 0
            with rasterio.open(target) as file:
                expected = scene.red.values.astype("f4") + scene.nir.values.astype("f4")
                np.testing.assert_array_equal(file.read(1), expected)
        assert main(["model", "inspect", f"grpc://{server.grpc}/total", "--json"]) == 0
        assert list(read_json(capsys)["outputs"]) == ["sum"]


def test_unknown_bands_of_a_prediction_have_a_fix(source, tmp_path, capsys):
    assert main(["predict", "m.onnx", source, str(tmp_path / "o.tif"), "--bands", "B4,red"]) == 1
    error = (
        "Band 'B4' not found; available: 'red', 'nir'. Name bands that have other names with --band-names."
    )
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ("1:low=#000,5:high=#fff", {"argmax": ["low", "high"], "values": [1, 5], "colors": ["#000", "#fff"]}),
        ("1:low,5:high", {"argmax": ["low", "high"], "values": [1, 5], "colors": None}),
        ("a: b,c", {"argmax": ["a: b", "c"], "colors": None}),
    ],
)
def test_class_map_has_values_names_and_colors(texts, expected):
    assert declare_classes(texts.split(",")) == expected


def test_class_map_without_a_value():
    with pytest.raises(OptionError, match="class_map has no value for 'b': give each class one, such as 1"):
        declare_classes(["1:a", "b"])


# -- Completion ----------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_options_and_choices(tmp_path, capsys):
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    lines = {"pl": "plan", "plan ": "export split predict", "export --pat": "--patch-dimensions"}
    lines |= {"export --edge ": "drop pad"}
    for line in lines:
        empty = "''" if line.endswith(" ") else ""
        script += f"COMP_WORDS=(xee-tf {line} {empty}); COMPREPLY=()\n"
        script += 'COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _xee_tf; echo "${COMPREPLY[*]}"\n'
    run = subprocess.run(
        ["bash", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout.splitlines() == list(lines.values())


@needs_posix
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_files_and_folders(tmp_path, capsys):
    """As arguments, as values of options and after other words, in a terminal."""
    import pty

    assert main(["completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    (tmp_path / "my data").mkdir()
    (tmp_path / "my data" / "scene one.tif").touch()
    (tmp_path / "wide.tif").touch()
    expected = {
        "export my\t": r"export my\ data/",
        "export my\tsc\t": r"export my\ data/scene\ one.tif ",
        "predict m wi\t": "predict m wide.tif ",
        "sample a b --where wi\t": "sample a b --where wide.tif ",
        "sample a b --where=wi\t": "sample a b --where=wide.tif ",
    }
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execvp("bash", ["bash", "--norc", "--noprofile", "-i"])
    try:
        shown = ""

        def reads(text):
            nonlocal shown
            shown += os.read(terminal, 1 << 16).decode() if select([terminal], [], [], 0.1)[0] else ""
            return text in shown

        os.write(terminal, b"bind 'set enable-bracketed-paste off'; PS1='> '; source script; echo re''ady\n")
        wait_until(lambda: reads("ready"), 20)
        for typed, completed in expected.items():
            shown = ""
            os.write(terminal, b"xee-tf " + typed.encode())
            wait_until(lambda completed=completed: reads(completed), 20)
            os.write(terminal, b"\x15")  # delete the line
    finally:
        os.close(terminal)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_scripts_for_other_shells_know_the_commands(shell, capsys):
    assert main(["completion", shell, "--json"]) == 0
    script = read_json(capsys)["script"]
    assert all(word in script for word in ("verify", "patch-dimensions", "scheduler"))


# -- Documentation -------------------------------------------------------------------------------------


def test_all_keys_of_json_are_documented(source, tmp_path, capsys):
    text = (ROOT / "docs" / "shell.md").read_text()
    onnx = pytest.importorskip("onnxruntime.datasets")
    pytest.importorskip("pyarrow")
    pytest.importorskip("geopandas")
    prefix, model = str(tmp_path / "s"), onnx.get_example("sigmoid.onnx")
    one = ["--bands", "red", "--output-bands", "p=float32"]
    commands = {
        "export": [source, prefix, *PATCH],
        "split": [source, prefix, "--patch-dimensions", "5"],
        "sample": [source, prefix, "--n", "2"],
        "plan export": [source, prefix],
        "plan split": [source, prefix, "--patch-dimensions", "5"],
        "plan predict": [model, source, str(tmp_path / "p.zarr"), *one],
        "predict": [model, source, str(tmp_path / "p.zarr"), *one],
        "inspect": [f"{prefix}-mixer.json"],
        "verify": [f"{prefix}-mixer.json"],
        "upload image": [f"{prefix}-00000.tfrecord.gz", f"{prefix}-mixer.json", str(tmp_path / "u.tif")],
        "upload table": [f"{prefix}.tfrecord.gz", str(tmp_path / "t.gpkg")],
        "model inspect": [model],
        "completion": ["bash"],
    }
    rows = dict(re.findall(r"^\| (`.*?) \| (.*) \|$", text.partition("| command | keys |")[2], re.MULTILINE))
    for command, arguments in commands.items():
        if command == "plan export":
            arguments = [*arguments, *PATCH]
        assert main([*command.split(), *arguments, "--json"]) == 0
        name = f"`{re.sub('upload .*', 'upload', command)}`"
        [row] = [row for names, row in rows.items() if name in names.split(", ")]
        documented = set(re.findall(r"`(\w+)`", row))
        if command.endswith("split"):
            documented |= set(re.findall(r"`(\w+)`", rows[name.replace("split", "export")]))
        found = read_json(capsys)
        assert set(found) <= documented, command
        for each in found.get("exports") or [] if isinstance(found.get("exports"), list) else []:
            assert set(each) <= documented
    assert {command.split()[-1] for command in commands} >= {"export", "predict", "inspect"}


# -- The server ----------------------------------------------------------------------------------------


@pytest.mark.long
def test_serve_prints_its_addresses_and_requests(tmp_path):
    tf = pytest.importorskip("tensorflow")
    requests = pytest.importorskip("requests")
    pytest.importorskip("starlette")

    @tf.function(input_signature=[tf.TensorSpec((None, 2), tf.float32, "row")])
    def predict(row):
        return {"sum": row[:, 0] + row[:, 1]}

    tf.saved_model.save(tf.Module(), tmp_path / "total", signatures=predict)
    logger = logging.getLogger("xee_tf.serving")
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with xee_tf.serve(tmp_path / "total") as server:
            assert server.signatures == {"total": ("serving_default",)}
            url = f"{server.url}/v1/models/total"
            assert requests.post(f"{url}:predict", json={"instances": [[1, 2]]}, timeout=30).ok
            requests.get(f"{server.url}/a%0Ab", timeout=30)
            assert main(["model", "inspect", f"grpc://{server.grpc}/total", "--quiet"]) == 0
            assert main(["model", "inspect", f"grpc://{server.grpc}/none", "--quiet"]) == 1
    finally:
        logger.removeHandler(handler)
        logger.setLevel(logging.NOTSET)
    forms = [
        r"127\.0\.0\.1 POST /v1/models/total:predict 200 \d+ ms",
        r"127\.0\.0\.1 GET /a\\nb 404 \d+ ms",
        r"127\.0\.0\.1 gRPC GetModelMetadata OK \d+ ms",
        r"127\.0\.0\.1 gRPC GetModelMetadata NOT_FOUND \d+ ms",
    ]
    for form, line in zip(forms, lines, strict=True):
        assert re.fullmatch(form, line)
