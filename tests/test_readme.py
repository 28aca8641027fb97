"""The code of README.md runs."""

import re

import numpy as np
import pytest
import rasterio

from tests.conftest import DATA, ROOT

BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)


def test_parts_without_extras_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = [block for block in BLOCKS if not block.startswith("# This block: extra")]
    parts = [part for block in blocks for part in block.split("\n\n") if '# Extra "' not in part]
    assert not re.search("keras|geopandas|tf_dataset|serve", "\n".join(parts))
    assert len(parts) > 12
    exec(compile("\n\n".join(parts), "README.md", "exec"), {})
    assert (tmp_path / "out" / "part-mixer.json").exists()


def test_code_blocks_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    assert BLOCKS
    namespace = {}
    for block in BLOCKS:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "out" / "prediction.tif").exists()
    assert (tmp_path / "out" / "points.tfrecord.gz").exists()


def test_plan_is_that_of_the_code():
    pytest.importorskip("requests")
    text = (ROOT / "README.md").read_text()
    [shown] = re.findall(r"```text\n(<xee_tf.PredictPlan .*?)```", text, flags=re.DOTALL)
    namespace = {}
    first = next(block for block in BLOCKS if "rng = " in block).partition("# Show what")[0]
    exec(compile(first, "README.md", "exec"), namespace)
    block = next(block for block in BLOCKS if "deployed.plan(" in block)
    exec(compile(block.replace("deployed.plan(", "plan = deployed.plan("), "README.md", "exec"), namespace)
    shown, plan = (" ".join(text.split()) for text in (shown, repr(namespace["plan"])))
    memory = r"[0-9.]+ [MG]iB for the whole process"  # depends on the process
    assert re.sub(memory, "", plan) == re.sub(memory, "", shown)


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
