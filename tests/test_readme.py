"""The code of README.md runs."""

import re

import pytest

from tests.conftest import ROOT


def test_code_blocks_run(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert blocks
    namespace = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)
    assert (tmp_path / "out" / "prediction.tif").exists()
    assert (tmp_path / "out" / "points.tfrecord.gz").exists()
