"""The pages of the documentation: their code runs, their links exist, and the reference is complete."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import xee_tf
from tests.conftest import ROOT

DOCS = ROOT / "docs"
PAGES = sorted(
    path for path in DOCS.rglob("*.md") if not {"_build", "tutorials"} & set(path.relative_to(DOCS).parts)
)
RASTER = DOCS / "how-to" / "index.md"
"""The page with the raster of all examples."""

# These pages run once, in `make test-full`: they start servers and clusters, or train.
SLOW = ("how-to/buckets.md", "how-to/clusters.md", "how-to/hosting.md", "scaling.md")
# Pages that other tests run.
OTHERS = ("index.md", "training.md", "tour.md", "maps.md")


def name_of(path: Path) -> str:
    return path.relative_to(DOCS).as_posix()


def blocks_of(path: Path) -> list[str]:
    """Return the Python code of a page, without what says why it cannot run."""
    blocks = re.findall(r"^```python\n(.*?)^```", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block for block in blocks if not block.startswith("# Not run in tests: ")]


def run(path: Path, blocks: list[str]) -> dict[str, object]:
    """Run the code of a page after the raster of the examples, in the current folder."""
    namespace: dict[str, object] = {}
    for page, code in [(RASTER, blocks_of(RASTER)), (path, blocks)]:
        for block in code:
            exec(compile(block, name_of(page), "exec"), namespace)
    return namespace


RUN = [path for path in PAGES if blocks_of(path) and name_of(path) not in (*SLOW, *OTHERS) and path != RASTER]


@pytest.mark.parametrize("path", RUN, ids=name_of)
def test_code_without_extras_runs(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in blocks_of(path) if not block.startswith("# This block: ")]
    parts = [[part for part in block.split("\n\n") if '# Extra "' not in part] for block in blocks]
    run(path, ["\n\n".join(part) for part in parts])


@pytest.mark.long
@pytest.mark.parametrize(
    "path", [p for p in RUN if re.search("# (Extra|This block)", p.read_text())], ids=name_of
)
def test_code_runs(path, tmp_path, monkeypatch):
    for package in ("obstore", "tensorflow", "pyarrow", "sklearn"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    run(path, blocks_of(path))


@pytest.fixture
def bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty bucket with the name of the examples."""
    import fsspec

    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    fs = fsspec.filesystem("s3", skip_instance_cache=True)
    fs.mkdir("bucket")
    yield
    fs.invalidate_cache()
    fs.rm("bucket", recursive=True)


@pytest.mark.long
def test_code_for_buckets_runs(bucket, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(DOCS / "how-to" / "buckets.md", blocks_of(DOCS / "how-to" / "buckets.md"))


@pytest.mark.long
def test_code_for_clusters_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run(DOCS / "how-to" / "clusters.md", blocks_of(DOCS / "how-to" / "clusters.md"))


@pytest.mark.long
def test_code_for_large_rasters_runs(bucket, tmp_path, monkeypatch):
    from distributed import LocalCluster

    monkeypatch.chdir(tmp_path)
    path = DOCS / "scaling.md"
    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        blocks = [
            block.replace("tcp://scheduler:8786", cluster.scheduler_address) for block in blocks_of(path)
        ]
        assert cluster.scheduler_address in "".join(blocks)
        run(path, [*blocks, "client.close()"])
    assert (tmp_path / "out" / "0-0" / "scene-mixer.json").exists()


@pytest.mark.long
def test_code_of_the_landing_page_runs(tmp_path, monkeypatch):
    keras = pytest.importorskip("keras")
    monkeypatch.chdir(tmp_path)
    network = keras.Sequential(
        [keras.Input((None, None, 2)), keras.layers.Conv2D(2, 3, padding="same", activation="softmax")]
    )
    network.compile("adam", "sparse_categorical_crossentropy")
    namespace = {"network": network}
    for block in blocks_of(RASTER) + blocks_of(DOCS / "index.md"):
        exec(compile(block, "index.md", "exec"), namespace)
    assert (tmp_path / "map.tif").exists()


@pytest.mark.long
def test_code_for_hosting_runs(tmp_path, monkeypatch):
    for package in ("tensorflow", "grpc", "starlette"):
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    run(DOCS / "how-to" / "hosting.md", blocks_of(DOCS / "how-to" / "hosting.md"))


def test_every_page_with_code_is_run():
    with_code = {name_of(path) for path in PAGES if blocks_of(path)}
    assert with_code - {*map(name_of, RUN), *SLOW, *OTHERS, name_of(RASTER)} == set()
    assert set(SLOW) <= with_code


@pytest.mark.parametrize(
    "path", [*PAGES, ROOT / "README.md"], ids=lambda path: path.relative_to(ROOT).as_posix()
)
def test_links_to_files_exist(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(), flags=re.DOTALL | re.MULTILINE)
    links = [link for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in link]
    files = [  # the site has copies of the notebooks
        DOCS.parent / "notebooks" / link.removeprefix("tutorials/")
        if path.parent == DOCS and link.startswith("tutorials/")
        else path.parent / link
        for link in links
    ]
    assert [file for file in files if not file.exists()] == []


def test_reference_has_everything_public():
    pages = {path: path.read_text() for path in (DOCS / "reference").glob("*.md")}
    listed = re.findall(r"^   (\w+)$|autoexception:: (\w+)", "\n".join(pages.values()), re.MULTILINE)
    names = ["".join(groups) for groups in listed]
    types = {name: getattr(xee_tf.typing, name) for name in xee_tf.typing.__all__}
    classes = [name for name, kind in types.items() if isinstance(kind, type) and kind is not Any]
    assert sorted(names) == sorted([*(set(xee_tf.__all__) - {"typing"}), *classes])


# -- Drawings ------------------------------------------------------------------------------------------


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Return a function that imports a module of the folder."""
    monkeypatch.setattr(sys, "path", [str(DOCS), *sys.path])
    return import_module


def test_drawings_are_valid_and_used(load):
    drawings = load("drawings")

    used = re.findall(r"^:::\{drawing\} (\w+)$", "\n".join(p.read_text() for p in PAGES), re.MULTILINE)
    assert sorted(used) == sorted(drawings.DRAWINGS)
    for draw in drawings.DRAWINGS.values():
        ElementTree.fromstring(draw())


def test_weights_of_the_drawing_add_up_to_one(load):
    drawings = load("drawings")

    dashed = re.findall(r'<path d="M([^"]+)" style="fill:none;stroke:currentColor', drawings.blending())[0]
    heights = {point.split()[1] for point in dashed.split("L")}
    assert heights <= {"0.0", "-0.0"}


def test_benchmarks_are_those_of_the_file(load):
    benchmark_pictures = load("benchmark_pictures")

    report = {
        "machine": {"cores": 3, "processor": "", "python": "3.12"},
        "small": False,
        "measurements": [
            {
                "name": "a <b>",
                "baseline": "plain",
                "value": value,
                "unit": unit,
                "goal": 2,
                "higher_is_better": True,
                "note": "7 and 8",
                "passed": value >= 2,
            }
            for value, unit in ((4.25, "times"), (0, "times"), (612, "MB"))
        ],
    }
    html = benchmark_pictures.as_html(report)
    assert "3 cores, Python 3.12" in html
    assert html.count("<tr>") == 4
    assert html.count("<rect") == 2  # only ratios are drawn
    assert "a &lt;b&gt;" in html
    assert "612 MB" in html


# -- Coming from Earth Engine --------------------------------------------------------------------------


def options_under(heading: str) -> dict[str, str]:
    """Return Earth Engine's options in a table of the page, and the cell beside each."""
    page = (DOCS / "coming-from" / "earth-engine.md").read_text()
    table = page.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    rows = [
        re.split(r"(?<!\\) \| ", line.strip("| ")) for line in table.splitlines() if line.startswith("| `")
    ]
    return {name: cells[1] for cells in rows for name in re.findall(r"`(\w+)`", cells[0])}


def test_options_of_exports_are_as_the_page_says(tmp_path):
    namespace: dict[str, Any] = {}
    exec(blocks_of(RASTER)[0], namespace)
    ds = namespace["ds"]
    taken = inspect.signature(xee_tf.export_image).parameters
    options = options_under("Options of an image export")
    assert len(options) > 30
    for name, ours in options.items():
        if ours == "error":
            with pytest.raises(xee_tf.OptionError, match=name):
                ds.tfexport.plan(tmp_path / "scene", **{name: 3})
        elif name not in ("image", "fileFormat", "formatOptions"):
            [first] = re.findall(r"^`(\w+)`", ours)
            assert first in taken


def test_options_of_models_are_as_the_page_says():
    pytest.importorskip("requests")
    models = (xee_tf.Model.from_vertex_ai, xee_tf.Model.from_ai_platform_predictor)
    taken = {name for model in models for name in inspect.signature(model).parameters}
    for ours in options_under("Options of a model").values():
        assert set(re.findall(r"`(\w+)`", ours)[:1]) <= taken


def test_options_of_earth_engine_are_complete():
    ee = pytest.importorskip("ee")
    for heading, functions in (
        ("Options of an image export", [ee.batch.Export.image.toCloudStorage]),
        ("Options of a table export", [ee.batch.Export.table.toCloudStorage]),
        ("Options of a model", [ee.Model.fromVertexAi, ee.Model.fromAiPlatformPredictor]),
    ):
        theirs = {name for function in functions for name in inspect.signature(function).parameters}
        assert sorted(theirs - {"kwargs"} - set(options_under(heading))) == []
