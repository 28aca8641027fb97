"""Arguments that several commands take, and the rasters that they name."""

from __future__ import annotations

import argparse
from pathlib import PurePosixPath
from typing import Any

import rioxarray
import xarray as xr

__all__ = ["assignment", "depths", "label", "open_raster", "size"]


def size(parser: argparse.ArgumentParser, name: str, default: tuple[int, int] | None, help_text: str) -> None:
    """An option of a width and a height."""
    shown = f"; default: {default[0]} {default[1]}" if default else ""
    parser.add_argument(
        name, nargs=2, type=int, default=default, metavar=("WIDTH", "HEIGHT"), help=help_text + shown
    )


def depths(parser: argparse.ArgumentParser, help_text: str) -> None:
    """The option of depths of array bands."""
    parser.add_argument(
        "--tensor-depths",
        nargs="+",
        type=_depth,
        action="extend",
        default=[],
        metavar="BAND=DEPTH",
        help=f"steps {help_text}",
    )


def _depth(text: str) -> tuple[str, int]:
    return assignment(text, "band=depth, such as ndvi=12")


def label(text: str) -> tuple[str, int]:
    """A name of a version."""
    return assignment(text, "label=version, such as stable=1")


def assignment(text: str, form: str) -> tuple[str, int]:
    """A name and a number."""
    name, _, number = text.rpartition("=")
    if not name or not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form {form}")
    return name, int(number)


def open_raster(source: str, chunk: int, *, alone: bool) -> Any:
    """A raster with its bands named; of several single-band files each after its file."""
    path = PurePosixPath(source.rstrip("/"))
    if path.suffix in (".zarr", ".nc", ".nc4", ".h5"):
        engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
        return xr.open_dataset(source, decode_coords="all", chunks={}, **engine)  # type: ignore[arg-type]
    raster: Any = rioxarray.open_rasterio(source, chunks={"x": chunk, "y": chunk})
    if alone:
        return raster
    if raster.sizes["band"] == 1:
        return raster.squeeze("band", drop=True).rename(path.stem)
    return raster.assign_coords(band=[f"{path.stem}_{number}" for number in raster.band.values])
