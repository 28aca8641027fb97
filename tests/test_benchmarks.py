"""The benchmarks run, at sizes that mean little, so that they cannot rot."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, needs_posix


@needs_posix
def test_all_benchmarks_run_and_report(tmp_path, data_dir):
    pytest.importorskip("tensorflow")
    command = [sys.executable, "-m", "benchmarks", "--small", "--json", str(tmp_path / "figures.json")]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    report = json.loads((tmp_path / "figures.json").read_text())
    found = {measurement["what"] for measurement in report["measurements"]}
    assert len(found) >= 11
    assert all(measurement["value"] > 0 for measurement in report["measurements"])
    assert len(out.stdout.splitlines()) == len(report["measurements"])
