"""Commands with random options and damaged files: messages, never errors of other packages."""

from __future__ import annotations

import io
import os
import random
import shutil
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pandas as pd
import pytest

import xee_tf
from tests.fuzzing import changed
from tests.hostile import VALUES
from tests.rasters import random_band, raster
from xee_tf_cli import main

SEED = random.randrange(2**32) if os.environ.get("XEE_TF_RANDOM_EXAMPLES") else 0

TEXTS = [
    *("", "0", "1", "-1", "8", "1.5", "1e999", "nan", "9" * 30, "9" * 5000, "1_0", " 1 ", "\uff11", "0x10"),
    *("a,b", ",", "=", "a=1", "a=-1", "a=" + "9" * 5000, "a=zz", "a\nb", "\0", "\ud800", "\udcff", "é"),
    *("a" * 300, "a" * 5000, "--", "-", "*", "?", "[", "{}", "null", "EPSG:4326", "EPSG:" + "9" * 5000),
    *("../..", "/dev/null", "s3://", "file:///x", "file:/x", "http://127.0.0.1:1/x", "a::b"),
    *(str(value)[:100] for value in VALUES),
]
OPTIONS = {
    "export": (
        "--band-names --bands --patch-dimensions --kernel-size --region --region-crs --compress "
        "--max-file-size --default-value --tensor-depths --sequence-data --collapse-bands "
        "--masked-threshold --resume --overwrite"
    ),
    "plan export": "--bands --patch-dimensions --kernel-size --region --sample --split --seed",
    "plan split": "--sides --block --class-band --patch-dimensions --region --edge --index",
    "inspect": "--kernel-size --tensor-depths --verify",
    "upload image": "--bands --nodata --dtype --overwrite --resume",
    "upload table": "--columns --crs --overwrite",
    "predict": (
        "--band-names --bands --array-dims --input-tile-size --output-bands --class-map --batch-size --blend"
    ),
    "model serve": "--labels --port --max-request-bytes --max-concurrency --name --host --grace",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A folder with a GeoTIFF, a Zarr store, and exports of an image and a table."""
    folder = tmp_path_factory.mktemp("inputs")
    ds = raster({name: random_band((16, 16)) for name in ("B4", "B5")})
    ds.tfexport(folder / "image", patch_dimensions=8)
    ds.to_zarr(folder / "scene.zarr", consolidated=False)
    xee_tf.to_cog(ds[["B4"]], folder / "scene.tif")
    rows = pd.DataFrame({"a": [1.0, 2.0], "lon": [1.0, 2.0], "lat": [3.0, 4.0]})
    xee_tf.export_table(rows, folder / "table")
    return folder


def damaged(folder: Path, generator: random.Random) -> None:
    """Change one file of a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = generator.choice(files)
    path.write_bytes(changed(path.read_bytes(), generator, [each.read_bytes() for each in files]))


def arguments(command: str, folder: Path, generator: random.Random) -> list[str]:
    """Return paths of files, or random texts, and random options."""

    def path(*names: str) -> str:
        return str(folder / generator.choice(names)) if generator.random() < 0.95 else generator.choice(TEXTS)

    every = [each.name for each in folder.iterdir()]
    scene = path("scene.tif", "scene.zarr", generator.choice(every))
    image = path("image-mixer.json", "image", generator.choice(every))
    output = f"{folder}-out/o{generator.choice(['', '.tif', '.zarr', '.gpkg', '.parquet'])}"
    small = ["--patch-dimensions", "8"] if generator.random() < 0.7 else []
    positional = {
        "export": [scene, output, *small],
        "plan export": [scene, output, *small],
        "plan split": [scene, output, *small],
        "inspect": [image],
        "upload image": [path("image", generator.choice(every)), image, output],
        "upload table": [path("table", generator.choice(every)), output],
        "predict": [path("none"), scene, output],
        "model serve": [path("none")],
    }[command]
    options = []
    for option in generator.sample(OPTIONS[command].split(), generator.choice((0, 0, 1, 1, 2, 3))):
        options += [option, *generator.choices(TEXTS, k=generator.choice((0, 1, 1, 1, 2, 4)))]
    return [*command.split(), *positional, *options]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("B4/zarr.json", '"shape": [', '"shape": ["a", '),
        ("B4/zarr.json", '"dimension_names": [', '"dimension_names": [{}, '),
        ("zarr.json", '"attributes"', '"attr)butes"'),
        ("B4/zarr.json", '"codecs"', '"coders"'),
        ("zarr.json", '"node_type": "group"', '"node_type": ["group"]'),
    ],
)
def test_damaged_metadata_of_zarr(inputs, tmp_path, capsys, file, old, new):
    scene = shutil.copytree(inputs / "scene.zarr", tmp_path / "scene.zarr")
    text = (scene / file).read_text()
    assert old in text
    (scene / file).write_text(text.replace(old, new, 1))
    assert main(["export", str(scene), str(tmp_path / "out"), "--patch-dimensions", "8"]) == 1
    message = capsys.readouterr().err
    assert message.startswith("xee-tf export: ")
    assert str(scene) in message


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [60, pytest.param(5000, marks=pytest.mark.long)])
def test_commands_end_with_a_message(inputs, tmp_path, monkeypatch, count):
    monkeypatch.chdir(tmp_path)
    generator = random.Random(SEED)
    codes, wrong = Counter(), Counter()
    for _ in range(count):
        folder = tmp_path / "files"
        shutil.copytree(inputs, folder)
        for _ in range(generator.choice((0, 1, 1, 2))):
            damaged(folder, generator)
        command = generator.choice(list(OPTIONS))
        tokens = arguments(command, folder, generator)
        with io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace") as stream:  # as standard error is
            try:
                with redirect_stderr(stream), redirect_stdout(stream):
                    code = main(tokens)
            except Exception as error:
                code = f"{type(error).__name__}: {str(error)[:100]!r}"
            stream.flush()
            output = stream.buffer.getvalue().decode(errors="replace")  # names of files may be any bytes
        shutil.rmtree(folder)
        shutil.rmtree(tmp_path / "files-out", ignore_errors=True)
        codes[code] += 1
        if code not in (0, 1, 2) or "Traceback" in output or (code and f"xee-tf {command}: " not in output):
            wrong[f"{code} of {[each[:100] for each in tokens]}: {output[:300]!r}"] += 1
    assert not wrong, f"seed {SEED}: {wrong}"
    assert set(codes) == {0, 1, 2}
