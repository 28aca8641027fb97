"""Zarr stores, GeoTIFFs and tables whose writer is killed, fails, or is not the only one."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
import zarr

import xee_tf
from tests.conftest import needs_posix
from tests.kill_points import kill_points
from tests.rasters import random_band, raster

pytestmark = [needs_posix]


def image(seed: int = 0) -> xr.Dataset:
    values = random_band((32, 32), seed=seed).astype("f4")
    values[:16, :16] = np.nan  # a chunk that is not written
    return raster({"B4": values}).chunk(y=16, x=16)


def model() -> xee_tf.Model:
    return xee_tf.Model.from_function(lambda b: b[..., 0] + 1, input_tile_size=16, output_bands=["p"])


def predict(folder: Path, seed: int, if_exists: Any = "error", zarr_format: int = 3) -> None:
    from unittest import mock

    with (
        zarr.config.set(default_zarr_format=zarr_format),
        mock.patch("xee_tf.blocks.sizing._BLOCK_BYTES", (1, 1)),
    ):
        xee_tf.predict_to_zarr(model(), image(seed), folder / "p.zarr", if_exists=if_exists)


def upload(folder: Path, seed: int, if_exists: Any = "error", zarr_format: int = 3) -> None:
    with zarr.config.set(default_zarr_format=zarr_format):
        source = folder.parent / f"source-{seed}"
        xee_tf.upload_image(None, source / "s-mixer.json", folder / "p.zarr", if_exists=if_exists)


def export(folder: Path) -> None:
    for seed in (1, 2):
        image(seed).tfexport(folder / f"source-{seed}" / "s", patch_dimensions=16)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def opened(path: Path) -> xr.Dataset | None:
    """Open a store as a user would; None if that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return xr.open_zarr(path).load()
        except (FileNotFoundError, xee_tf.XeeTFError):
            return None


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("write", [predict, upload])
def test_killed_before_every_change(
    write: Callable[..., None], old: bool, zarr_format: int, step: int, tmp_path: Path
) -> None:
    """The store is the old one, the new one, or cannot be opened; the next run completes it."""
    export(tmp_path)
    work, expected = tmp_path / "work", tmp_path / "expected"
    for folder, seed in ((expected, 2), (work, 1)):
        folder.mkdir()
        write(folder, seed, zarr_format=zarr_format)
    if not old:
        shutil.rmtree(work / "p.zarr")
    whole = tree(expected)
    old_values, new_values = opened(work / "p.zarr"), opened(expected / "p.zarr")
    assert new_values is not None
    if_exists = "overwrite" if old else "error"
    points = 0
    for point in kill_points(lambda: write(work, 2, if_exists, zarr_format), work, step=step):
        points += 1
        found = opened(work / "p.zarr")
        assert found is None or found.identical(new_values) or found.identical(old_values), point.what
        if old and found is None:
            assert any(path.name == "p.zarr" for path in work.rglob("p.zarr")), point.what
        if found is not None and found.identical(new_values) and not old:
            if_exists_again = "error" if write is predict else "resume"
        else:
            if_exists_again = if_exists
        write(work, 2, if_exists_again, zarr_format)
        assert tree(work) == whole, (point.what, point.changes[-3:])
        assert os.listdir(work) == ["p.zarr"], point.what
    assert points > 60 / step
