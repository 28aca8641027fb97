"""Print the minimum versions of the core dependencies in pyproject.toml, as constraints for pip."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

__all__ = ["constraints"]


def constraints(pyproject: Path) -> list[str]:
    """Return ``name==version`` for each dependency, without extras, which pip rejects in constraints."""
    lines = []
    for requirement in tomllib.loads(pyproject.read_text())["project"]["dependencies"]:
        parts = re.fullmatch(r"([\w-]+)(\[[\w,-]+\])?>=([\d.]+)", requirement)
        if parts is None:
            raise SystemExit(f"Expected a dependency of the form name>=version; got {requirement!r}.")
        lines.append(f"{parts[1]}=={parts[3]}")
        if "distributed" in (parts[2] or ""):  # always has the version of Dask
            lines.append(f"distributed=={parts[3]}")
    return lines


if __name__ == "__main__":
    print("\n".join(constraints(Path(__file__).parents[1] / "pyproject.toml")))
