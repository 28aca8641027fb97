"""Errors for missing packages, and features that work without extras."""

from __future__ import annotations

import ast
import os
import pickle
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

import xee_tf
from xee_tf.extras import extra
from xee_tf.storage.filesystems import EXTRAS as STORES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = ("tensorflow", "tables", "hosted", "onnx", "serve", "plot", "demo", "map", "s3", "azure", "gcs")

# Modules that only extras install, and urllib3, which other packages may install.
OPTIONAL = (
    "adlfs",
    "dask.dataframe",
    "gcsfs",
    "geopandas",
    "google",
    "grpc",
    "httptools",
    "keras",
    "matplotlib",
    "ml_dtypes",
    "onnxruntime",
    "orjson",
    "pyarrow",
    "requests",
    "s3fs",
    "starlette",
    "tensorflow",
    "urllib3",
    "uvicorn",
)

WITHOUT = """
import sys

class MissingFinder:
    def find_spec(self, name, path=None, target=None):
        if name == "dask.dataframe" or name.split(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, MissingFinder())
"""

CORE_JOBS = """
import sys
import numpy as np, pandas as pd, xarray as xr, xee_tf

folder = sys.argv[1]
x, y = 7e5 + 30 * np.arange(64.0), 5e6 - 30 * np.arange(64.0)
band = (("y", "x"), np.arange(64 * 64, dtype="float32").reshape(64, 64))
ds = xr.Dataset({"B4": band}, {"x": x, "y": y}).rio.write_crs("EPSG:32633").chunk(y=32, x=32)

assert ds.tfexport.plan(f"{folder}/scene", patch_dimensions=32)._repr_html_()
result = ds.tfexport(f"{folder}/scene", patch_dimensions=32)
assert xee_tf.verify(f"{folder}/scene").ok
assert xee_tf.open_image(result)["B4"].identical(xee_tf.open_image(f"{folder}/scene-mixer.json")["B4"])
opened = xr.open_dataset(f"{folder}/scene-mixer.json", engine="tfrecord", chunks={})
np.testing.assert_array_equal(opened["B4"], ds["B4"])

sampled = xee_tf.sample_table(ds, None, f"{folder}/sampled", n=10, seed=0)
assert len(xee_tf.open_table(sampled.path)) == 10
table = xee_tf.export_table(pd.DataFrame({"a": [1, 2]}), f"{folder}/table")
assert xee_tf.open_table(table.path)["a"].tolist() == [1, 2]

model = xee_tf.Model.from_function(lambda tiles: tiles * 2, input_tile_size=32, output_bands=["twice"])
np.testing.assert_array_equal(model.predict_image(ds, merge=False)["twice"], ds["B4"] * 2)
xee_tf.predict_to_zarr(model, ds, f"{folder}/twice.zarr")

with xee_tf.PredictionWriter(f"{folder}/p-00000.tfrecord.gz", f"{folder}/scene-mixer.json") as writer:
    writer.write({"ones": np.ones((4, 32, 32), "float32")})
for name in ("p.tif", "p.zarr"):
    xee_tf.upload_image(f"{folder}/p-00000.tfrecord.gz", f"{folder}/scene-mixer.json", f"{folder}/{name}")
"""


def run_without(absent: tuple[str, ...], code: str, *arguments: str) -> None:
    """Run code in a process that cannot import some modules."""
    program = WITHOUT.replace("ABSENT", repr(absent)) + code
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def packages_of(names: set[str]) -> set[str]:
    """Return the packages of extras, including nested extras."""
    packages = set()
    for name in names:
        for text in PROJECT["optional-dependencies"][name]:
            package, inner = re.fullmatch(r"([\w-]+)(?:\[([\w,-]+)\])?.*", text).groups()
            packages |= packages_of(set(inner.split(","))) if package == "xee-tf" else {package}
    return packages - {"dask"}  # always installed; dask.dataframe needs pyarrow


def is_installed(package: str) -> bool:
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False


def test_environment_has_the_expected_packages() -> None:
    """All packages for tests, or, with XEE_TF_EXTRAS=none, no package of an extra."""
    expected = os.environ.get("XEE_TF_EXTRAS", "all")
    assert expected in ("all", "none")
    packages = packages_of({"test"} if expected == "all" else set(EXTRAS)) - packages_of({"test-core"})
    installed = {package for package in packages if is_installed(package)}
    if expected == "all":
        assert sorted(packages - installed) == []
    else:
        assert sorted(installed - {"urllib3"}) == []  # installed with Dask


@pytest.mark.parametrize("name", EXTRAS)
def test_extra(name: str) -> None:
    """The list of skipped tests shows which extras are not installed."""
    missing = sorted(package for package in packages_of({name}) if not is_installed(package))
    if missing:
        pytest.skip(f"the extra {name} is not installed: missing {', '.join(missing)}")


def test_all_includes_every_extra_for_users() -> None:
    assert packages_of({"all"}) == packages_of(set(EXTRAS))


def test_core_features_run_without_extras(tmp_path: Path) -> None:
    absent = tuple(name for name in OPTIONAL if name not in ("dask.dataframe", "urllib3"))
    run_without(absent, CORE_JOBS, str(tmp_path))


def test_optional_packages_are_imported_with_extra() -> None:
    """The demo checks its packages once, at the beginning."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno} {name}"
        for path in sorted((ROOT / "xee_tf").rglob("*.py"))
        if path.name != "demo.py"
        for node, guarded in walk(ast.parse(path.read_text()), False)
        if not guarded
        for name in imported(node)
        if f"{name}.".startswith(tuple(f"{each}." for each in OPTIONAL))
    ]
    assert wrong == []


def walk(node: ast.AST, guarded: bool):
    """Yield all nodes, and whether each is in a block of `extra` or of TYPE_CHECKING."""
    yield node, guarded
    inner = guarded
    if isinstance(node, ast.With):
        inner = any(ast.unparse(item.context_expr).startswith("extra(") for item in node.items) or guarded
    elif isinstance(node, ast.If):
        inner = ast.unparse(node.test) == "TYPE_CHECKING" or guarded
    for child in ast.iter_child_nodes(node):
        yield from walk(child, inner)


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def test_names_of_extras_exist() -> None:
    names = {
        node.args[0].value
        for path in (ROOT / "xee_tf").rglob("*.py")
        if path.name != "extras.py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("extra", "require")
        if isinstance(node.args[0], ast.Constant)
    }
    assert names | set(STORES.values()) <= set(EXTRAS)


def test_error_for_a_missing_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "google.auth", None)
    with pytest.raises(xee_tf.MissingExtraError) as caught, extra("hosted", "A hosted model"):
        import google.auth  # noqa: F401
    assert str(caught.value) == (
        'A hosted model needs google-auth, which is not installed: pip install "xee-tf[hosted]"'
    )
    assert isinstance(caught.value, xee_tf.XeeTFError)
    assert isinstance(caught.value, ModuleNotFoundError)


@pytest.mark.parametrize(
    ("call", "package", "name"),
    [
        ("xee_tf.tf_dataset('scene-mixer.json', inputs='B4')", "tensorflow", "tensorflow"),
        ("xee_tf.prepare_model('model', 'prepared')", "tensorflow", "tensorflow"),
        ("xee_tf.upload_table('sites.tfrecord', 'sites.parquet')", "geopandas", "tables"),
        ("xee_tf.export_table(pandas.DataFrame({'a': ['text']}), FOLDER + '/table')", "pyarrow", "tables"),
        ("xee_tf.export_image(scene, FOLDER + '/scene', index=True)", "geopandas", "tables"),
        ("xee_tf.export_image(scene, 's3://bucket/scene')", "s3fs", "s3"),
        ("xee_tf.open_image('az://container/scene')", "adlfs", "azure"),
        ("xee_tf.open_image('simplecache::gs://bucket/scene')", "gcsfs", "gcs"),
        ("xee_tf.Model.from_onnx(b'model').connector.open()", "onnxruntime", "onnx"),
        ("xee_tf.Model.from_tf_serving('http://models:8501', 'm')", "requests", "hosted"),
        ("xee_tf.Model.from_tf_serving('models:8500', 'm', transport='grpc')", "grpcio", "hosted"),
        ("xee_tf.Model.from_vertex_ai('projects/p/locations/l/endpoints/1')", "requests", "hosted"),
        (
            "xee_tf.Model.from_ai_platform_predictor('p', 'm', base_url='https://ml.test')",
            "requests",
            "hosted",
        ),
    ],
)
def test_errors_contain_the_extra(call: str, package: str, name: str, tmp_path: Path) -> None:
    code = f"""
import sys
import numpy, pandas, xarray, xee_tf
FOLDER = sys.argv[1]
axis = numpy.arange(4.0)
scene = xarray.Dataset({{"B4": (("y", "x"), numpy.ones((4, 4)))}}, {{"y": axis[::-1], "x": axis}})
try:
    {call}
except xee_tf.MissingExtraError as error:
    assert "needs {package}, which" in str(error), error
    assert str(error).endswith('pip install "xee-tf[{name}]"'), error
else:
    raise SystemExit("nothing is missing")
"""
    absent = (
        "tensorflow",
        "geopandas",
        "pyarrow",
        "requests",
        "grpc",
        "s3fs",
        "adlfs",
        "gcsfs",
        "onnxruntime",
    )
    run_without(absent, code, str(tmp_path))


@pytest.mark.parametrize(
    ("absent", "package"), [("google.auth", "google-auth"), ("requests", "requests"), ("orjson", "orjson")]
)
def test_hosted_models_check_packages_without_importing_them(
    absent: str, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("requests")
    pytest.importorskip("orjson")
    pytest.importorskip("google.auth")
    endpoint = "projects/p/locations/l/endpoints/1"
    pickled = pickle.dumps(xee_tf.Model.from_vertex_ai(endpoint))
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(xee_tf.MissingExtraError, match=rf"A hosted model needs {package}, which"):
        xee_tf.Model.from_vertex_ai(endpoint)
    assert isinstance(pickle.loads(pickled), xee_tf.Model)  # a scheduler needs no extra


def test_error_of_a_broken_package_is_not_changed() -> None:
    with pytest.raises(ImportError, match="no symbol") as caught, extra("tables", "A table"):
        raise ImportError("no symbol")
    assert not isinstance(caught.value, xee_tf.XeeTFError)
