"""The tutorials in ``notebooks/`` run in a new kernel. Their stored outputs are those of no machine."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("nbclient")
pytest.importorskip("matplotlib")

import nbformat
from PIL import Image

from tests.notebooks import FOLDER, execute, for_storage

TUTORIALS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def test_quickstart_runs(tmp_path, data_dir):
    pytest.importorskip("tensorflow")
    stored = read("quickstart")
    [training] = [cell for cell in stored.cells if "epochs=" in cell.source]
    training.source = re.sub(r"epochs=\d+", "epochs=1", training.source)
    nbformat.write(stored, tmp_path / "quickstart.ipynb")
    executed = execute(tmp_path / "quickstart.ipynb", tmp_path, data_dir)
    assert pictures(executed) == pictures(stored)
    assert (tmp_path / "out" / "landcover.tif").is_file()


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({*TUTORIALS} - {"quickstart", "main_job"}))
def test_tutorial_runs(name, tmp_path, data_dir):
    for module in ("tensorflow", "geopandas", "sklearn", "h5netcdf"):
        pytest.importorskip(module)
    executed = execute(FOLDER / f"{name}.ipynb", tmp_path, data_dir)
    assert pictures(executed) == pictures(read(name))


@pytest.mark.parametrize("name", TUTORIALS)
def test_outputs_are_stored_without_the_machine(name):
    notebook = read(name)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "run: make notebooks"
    assert pictures(notebook) >= 2
    for cell in code:
        assert "execution" not in cell.metadata  # the times
        for output in cell.outputs:
            assert output.output_type != "error"
            data = {kind: text for kind, text in output.get("data", {}).items() if kind != "image/png"}
            text = json.dumps({**output, "data": data})
            assert not re.search(r"/(tmp|home|root|work|Users|private)/|ipykernel_", text), cell.source


@pytest.mark.parametrize("name", TUTORIALS)
def test_links_lead_to_files(name):
    text = "\n".join(cell.source for cell in read(name).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^):]+)\)", text)
    assert [target for target in targets if not (FOLDER / target).exists()] == []


def test_stored_outputs_have_no_logs_paths_and_random_ids():
    log = "I0000 00:00:1795.1 7 port.cc:153] oneDNN is on.\n"
    warning = "/tmp/ipykernel_7/12.py:1: UserWarning: 3 points are omitted.\n"
    ids = ["0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f", "ffffffff-0a1b-0a1b-0a1b-0a1b2c3d4e5f"]
    cell = nbformat.v4.new_code_cell(
        outputs=[
            nbformat.v4.new_output("stream", name="stderr", text=log),
            nbformat.v4.new_output("stream", name="stderr", text=log + warning),
            nbformat.v4.new_output(
                "display_data", data={"text/html": f"{ids[0]} {ids[1]} {ids[0]} /tmp/x/out/a"}
            ),
        ]
    )
    [stored] = for_storage(nbformat.v4.new_notebook(cells=[cell]), Path("/tmp/x")).cells
    assert [output.get("text") for output in stored.outputs] == ["UserWarning: 3 points are omitted.\n", None]
    assert stored.outputs[1].data["text/html"] == "id-0 id-1 id-0 out/a"


def test_stored_pictures_have_the_colors_of_legends():
    scene = np.random.default_rng(0).integers(0, 256, (200, 300, 3), "uint8")
    scene[..., 1:] = scene[..., :1] // 2  # many shades of red
    legend = {"agriculture": (237, 174, 73), "herbaceous": (200, 217, 111), "water": (46, 126, 191)}
    for at, color in enumerate(legend.values()):
        scene[190:196, 20 * at : 20 * at + 12] = color
    buffer = io.BytesIO()
    Image.fromarray(scene).save(buffer, "PNG")
    picture = {"image/png": base64.b64encode(buffer.getvalue()).decode()}
    cell = nbformat.v4.new_code_cell(outputs=[nbformat.v4.new_output("display_data", data=picture)])
    [stored] = for_storage(nbformat.v4.new_notebook(cells=[cell]), Path("/tmp/x")).cells
    found = Image.open(io.BytesIO(base64.b64decode(stored.outputs[0].data["image/png"]))).convert("RGB")
    for at, color in enumerate(legend.values()):
        assert np.abs(np.subtract(found.getpixel((20 * at + 5, 193)), color)).max() <= 8
