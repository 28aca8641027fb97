"""Prints the lowest versions that pyproject.toml declares for the core, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

__all__ = ["constraints"]


def constraints(pyproject: Path) -> list[str]:
    """``name==version`` of each dependency; pip takes no extras in constraints."""
    found = []
    for requirement in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        parts = re.fullmatch(r"([\w-]+)(\[[\w,-]+\])?>=([\d.]+)", requirement)
        if parts is None:
            raise SystemExit(f"{requirement}: a dependency is declared as name>=version")
        found.append(f"{parts[1]}=={parts[3]}")
        if "distributed" in (parts[2] or ""):  # of the same version as Dask, always
            found.append(f"distributed=={parts[3]}")
    return found


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).parents[1] / "pyproject.toml")))
