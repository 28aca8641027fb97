"""The benchmarks run, with small sizes."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, needs_posix


@needs_posix
@pytest.mark.long
def test_benchmarks_run(tmp_path, data_dir):
    pytest.importorskip("tensorflow")
    command = [sys.executable, "-m", "benchmarks", "--small", "--json", str(tmp_path / "figures.json")]
    process = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    names = {measurement["name"] for measurement in report["measurements"]}
    assert len(names) >= 11
    assert all(measurement["value"] > 0 for measurement in report["measurements"])
    assert len(process.stdout.splitlines()) == len(report["measurements"])
