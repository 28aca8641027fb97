"""Collection of doctests, and options that run most tests in one of two environments only."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from xee_tf import MissingExtraError

ROOT = Path(__file__).parent


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Ignore modules of the package that need an extra that is not installed."""
    if collection_path.suffix != ".py" or not collection_path.is_relative_to(ROOT / "xee_tf"):
        return None
    try:
        import_module(".".join(collection_path.relative_to(ROOT).with_suffix("").parts))
    except MissingExtraError:
        return True
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options with which `make test` runs most tests only once, without extras."""
    parser.addoption("--write-passed", type=Path, metavar="FILE", help="write the names of passed tests")
    parser.addoption("--skip-passed", type=Path, metavar="FILE", help="run only the other tests")


def pytest_configure(config: pytest.Config) -> None:
    """Register the plugin of --write-passed, but not in the processes of pytest-xdist."""
    file = config.getoption("--write-passed")
    if file is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(PassedTests(file))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests of --skip-passed."""
    file = config.getoption("--skip-passed")
    if file is None:
        return
    passed = set(file.read_text().splitlines())
    skipped = [item for item in items if item.nodeid in passed]
    config.hook.pytest_deselected(items=skipped)
    chosen = set(items) - set(skipped)
    items[:] = [item for item in items if item in chosen]


class PassedTests:
    """Plugin that writes the names of the passed tests, one per line."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.names: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the name of a passed test."""
        if report.when == "call" and report.passed:
            self.names.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        """Write the file."""
        self.file.write_text("\n".join(self.names))
