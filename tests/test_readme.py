import re

import pytest

from tests.conftest import ROOT


def test_the_tour_runs(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    names = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert (tmp_path / "out" / "prediction.tif").exists()
    assert (tmp_path / "out" / "points.tfrecord.gz").exists()
