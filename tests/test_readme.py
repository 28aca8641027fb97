"""The code of README.md, of the tour and of the page about training runs."""

import re

import numpy as np
import pytest
import rasterio

from tests.conftest import DATA, ROOT

TOUR = (ROOT / "docs" / "tour.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TOUR, flags=re.DOTALL)


def test_parts_without_extras_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in BLOCKS if not block.startswith("# This block: extra")]
    parts = [part for block in blocks for part in block.split("\n\n") if '# Extra "' not in part]
    assert not re.search("keras|geopandas|tf_dataset|serve", "\n".join(parts))
    assert len(parts) > 12
    exec(compile("\n\n".join(parts), "tour.md", "exec"), {})
    assert (tmp_path / "out" / "part-mixer.json").exists()


def test_code_blocks_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    assert BLOCKS
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "tour.md", "exec"), namespace)
    assert (tmp_path / "out" / "prediction.tif").exists()
    assert (tmp_path / "out" / "points.tfrecord.gz").exists()


def test_plan_is_that_of_the_code():
    pytest.importorskip("requests")
    [shown] = re.findall(r"```text\n(<xee_tf.PredictPlan .*?)```", TOUR, flags=re.DOTALL)
    namespace = {}
    first = next(block for block in BLOCKS if "rng = " in block).partition("# Show what")[0]
    exec(compile(first, "tour.md", "exec"), namespace)
    block = next(block for block in BLOCKS if "deployed.plan(" in block)
    exec(compile(block.replace("deployed.plan(", "plan = deployed.plan("), "tour.md", "exec"), namespace)
    plan = repr(namespace["plan"])
    assert without_memory(plan) == without_memory(shown)


def without_memory(plan: str) -> str:
    """Return the text of a plan without the memory of the process, and on one line."""
    return re.sub(r"[0-9.]+ [MG]iB for the whole process", "", " ".join(plan.split()))


def test_example_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    pytest.importorskip("tensorflow")
    pytest.importorskip("keras").utils.clear_session()  # other tests have used the names that Keras counts
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".data").symlink_to(DATA, target_is_directory=True)
    text = (ROOT / "README.md").read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    [shown] = re.findall(r"```text\n(.*?)```", text, flags=re.DOTALL)
    exec(compile(code.replace("epochs=12", "epochs=1"), "README.md", "exec"), {})
    plan = capsys.readouterr().out.partition("<")[2]
    assert without_memory(plan) == without_memory(shown.partition("<")[2])
    with rasterio.open(tmp_path / "out" / "landcover.tif") as written:
        assert (written.width, written.height, written.nodata) == (489, 443, 255)


@pytest.mark.filterwarnings("ignore:.*points are outside the raster", "ignore:__array__ implementation")
def test_training_page_runs(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    pytest.importorskip("geopandas")
    pytest.importorskip("sklearn")
    monkeypatch.setenv("XEE_TF_DATA", str(DATA))
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "training.md").read_text(), flags=re.DOTALL)
    namespace = {}
    for block in blocks:
        few = re.sub(r"epochs=\d+", "epochs=1", block)
        exec(compile(few, "training.md", "exec"), namespace)
    assert namespace["probability"].shape == (8, 443, 489)
    assert (tmp_path / "out" / "probability.tif").exists()
    forest, scene, inputs = namespace["forest"], namespace["scene"], namespace["inputs"]
    pixels = np.stack([scene[name].values for name in inputs], axis=-1)
    valid = ~np.isnan(pixels).any(axis=-1)
    with rasterio.open(tmp_path / "out" / "classes.tif") as named:
        assert named.colormap(1)[namespace["names"].index("water")] == (0x2E, 0x7E, 0xBF, 255)
        np.testing.assert_array_equal(named.read(1) != named.nodata, valid)
    with rasterio.open(tmp_path / "out" / "numbers.tif") as numbered:
        assert numbered.colormap(1)[6] == (0x2E, 0x7E, 0xBF, 255)  # water
        np.testing.assert_array_equal(numbered.read(1)[valid], forest.predict(pixels[valid]))
