"""Collection of doctests."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

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
