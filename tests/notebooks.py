"""Execute the tutorials in ``notebooks/``, and store their outputs: ``make notebooks``."""

from __future__ import annotations

import argparse
import base64
import io
import os
import re
import tempfile
import time
from pathlib import Path

from tests.optional import optional

nbformat = optional("nbformat")
NotebookClient = optional("nbclient", "NotebookClient")
Image = optional("PIL.Image")

FOLDER = Path(__file__).parents[1] / "notebooks"
# Lines that TensorFlow, gRPC and workers of Dask log, and empty ones
_LOG = re.compile(
    r"[IWE]\d{4} \d\d:\d\d:|WARNING: All log messages before absl|INFO:tensorflow:|"
    r"[0-9-]{10} [0-9:,]{12} - distributed|\s*$"
)
_CELL_PATH = re.compile(r"/[^\s\"]*/ipykernel_\d+/\d+\.py:\d+: ")
_RANDOM_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")  # of the HTML of xarray


def execute(path: Path, folder: Path, data: Path) -> nbformat.NotebookNode:
    """Execute a notebook with a new kernel in an empty folder; an error of a cell is raised."""
    notebook = nbformat.read(path, as_version=4)
    before = os.environ.get("XEE_TF_DATA")
    os.environ["XEE_TF_DATA"] = str(data)
    try:
        client = NotebookClient(
            notebook,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            resources={"metadata": {"path": str(folder)}},
        )
        return client.execute()
    finally:
        if before is None:
            del os.environ["XEE_TF_DATA"]
        else:
            os.environ["XEE_TF_DATA"] = before


def for_storage(notebook: nbformat.NotebookNode, folder: Path) -> nbformat.NotebookNode:
    """Return an executed notebook without what belongs to the machine: logs, paths and random ids."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in map(_without_logs, cell.outputs) if output]
    text = nbformat.writes(notebook).replace(f"{folder}/", "")
    text = _CELL_PATH.sub("", text)
    numbers: dict[str, str] = {}
    text = _RANDOM_ID.sub(lambda found: numbers.setdefault(found[0], f"id-{len(numbers)}"), text)
    return nbformat.reads(text, as_version=4)


def _without_logs(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Remove lines of logs; make pictures small."""
    if output.output_type == "stream":
        lines = [line for line in output.text.splitlines(keepends=True) if not _LOG.match(line)]
        output.text = "".join(lines)
        return output if output.text.strip() else None
    if picture := output.get("data", {}).get("image/png"):
        image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
        image = image.quantize(256, Image.Quantize.MAXCOVERAGE, kmeans=2)  # keeps the colors of small parts
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
        output.data["image/png"] = base64.b64encode(buffer.getvalue()).decode()
    return output


def main() -> None:
    """Execute notebooks by name, and store their outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="names of notebooks without suffix; all by default")
    parser.add_argument("--data", type=Path, default=os.environ.get("XEE_TF_DATA", ".data"))
    arguments = parser.parse_args()
    paths = [FOLDER / f"{name}.ipynb" for name in arguments.names] or sorted(FOLDER.glob("*.ipynb"))
    for path in paths:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            executed = execute(path, Path(folder), Path(arguments.data).absolute())
            executed = for_storage(executed, Path(folder))
        nbformat.write(executed, path)
        print(f"{path.name}: {time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
