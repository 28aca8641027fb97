"""Arguments that several commands take, and the rasters that they name."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Callable, Collection, Sequence
from pathlib import PurePosixPath
from typing import Any

import rioxarray
import xarray as xr

import xee_tf
from xee_tf.cli.parser import Parser
from xee_tf.errors import OptionError
from xee_tf.options import IfExists

__all__ = [
    "NO_IF_EXISTS",
    "add_crs_and_chunk",
    "add_depths",
    "add_names",
    "add_overwrite",
    "add_size",
    "add_sources",
    "assignment",
    "if_exists",
    "is_assignment",
    "label",
    "names",
    "open_image",
    "options_of",
]

NO_IF_EXISTS = {"if_exists": "--overwrite replaces what is there, and without it that is an error"}
"""What takes the place of the option of our functions on the command line."""


class _Sides(argparse.Action):
    """A width and a height, or one number for both."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Put the pair where the command finds it."""
        sides = [side for given in values for side in given]
        if len(sides) > 2:
            raise argparse.ArgumentError(self, f"expected one number or two, and not {len(sides)}")
        setattr(namespace, self.dest, tuple(sides * 2)[:2])


def add_size(parser: Parser, name: str, default: tuple[int, int] | None, help_text: str) -> None:
    """An option of a width and a height, or of one number for both."""
    shown = f"; default: {default[0]} {default[1]}" if default else ""
    parser.add_argument(
        name,
        nargs="+",
        type=_sides,
        action=_Sides,
        default=default,
        metavar=("WIDTH", "HEIGHT"),
        help=help_text + shown,
        fits=lambda text: _SIDES.fullmatch(text) is not None,
        most=2,
    )


_SIDES = re.compile(r"-?\d+(,-?\d+)?")


def _sides(text: str) -> tuple[int, ...]:
    if _SIDES.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(f"expected one number or two, such as 256 or 256,128; got {text!r}")
    return tuple(map(int, text.split(",")))


def add_depths(parser: Parser, help_text: str) -> None:
    """The option of depths of array bands."""
    parser.add_argument(
        "--tensor-depths",
        nargs="+",
        type=_depth,
        action="extend",
        default=[],
        metavar="BAND=DEPTH",
        help=f"steps {help_text}",
        fits=is_assignment,
    )


def is_assignment(text: str) -> bool:
    """Whether an argument is a name and a number, such as ndvi=12."""
    return text.rpartition("=")[2].isdecimal() and "=" in text


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


def names(texts: Sequence[str] | None, known: Collection[Any] = ()) -> list[str] | None:
    """Names given one by one, or with commas between them.

    Parameters
    ----------
    texts : sequence of str or None
    known : collection
        Names that may have commas in them.

    Raises
    ------
    OptionError
        If a name is empty.

    Examples
    --------
    >>> names(["B4,B3", "a,b", "B2"], known=["a,b"])
    ['B4', 'B3', 'a,b', 'B2']
    """
    if texts is None:
        return None
    found = [name for text in texts for name in ([text] if text in known else text.split(","))]
    if "" in found:
        raise OptionError(f"There is an empty name in {' '.join(texts)!r}: separate names by one comma.")
    return found


def add_names(parser: Parser, name: str, metavar: str, help_text: str, *, nargs: str = "+") -> None:
    """An option of several names, which may be given more than once; see `names`."""
    parser.add_argument(name, nargs=nargs, action="extend", metavar=metavar, help=help_text)


def add_overwrite(parser: Parser, what: str = "what is there") -> None:
    """The option that stands for ``if_exists``; see `if_exists`."""
    parser.add_argument("--overwrite", action="store_true", help=f"replace {what}")


def if_exists(arguments: argparse.Namespace) -> IfExists:
    """What `overwrite` has put there, as functions take it."""
    return "overwrite" if arguments.overwrite else "error"


def options_of(function: Callable[..., Any], arguments: argparse.Namespace, **others: Any) -> dict[str, Any]:
    """The arguments that are parameters of a function under the same names; `others` come in their place."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in vars(arguments).items() if name in known} | others


def add_sources(parser: Parser, several: str) -> None:
    """The rasters to work on, as `open_image` opens them."""
    parser.add_argument(
        "sources", nargs="+", metavar="RASTER", help=f"what GDAL, Zarr or NetCDF open; {several}"
    )


def add_crs_and_chunk(parser: Parser) -> None:
    """How `open_image` opens rasters."""
    parser.add_argument("--crs", help="CRS of rasters that have none")
    parser.add_argument(
        "--chunk", type=int, default=1024, metavar="PIXELS", help="side of a chunk read from disk"
    )


def open_image(arguments: argparse.Namespace) -> xr.Dataset:
    """The rasters that are named, as one image."""
    alone = len(arguments.sources) == 1
    images = [_open_raster(source, arguments.chunk, alone=alone) for source in arguments.sources]
    return xee_tf.add_bands(*images, crs=arguments.crs)


def _open_raster(source: str, chunk: int, *, alone: bool) -> Any:
    """A raster with its bands named; of several single-band files each after its file."""
    path = PurePosixPath(source.rstrip("/"))
    if path.suffix in (".zarr", ".nc", ".nc4", ".h5"):
        engine = {"engine": "zarr"} if path.suffix == ".zarr" else {}
        try:
            return xr.open_dataset(source, decode_coords="all", chunks={}, **engine)  # type: ignore[arg-type]
        except ValueError as error:  # xarray has no reader for it, or it is not such a file
            raise OptionError(
                f"{source} cannot be opened: {str(error).splitlines()[0]} NetCDF files need h5netcdf or "
                "netCDF4: pip install h5netcdf."
            ) from error
    raster: Any = rioxarray.open_rasterio(source, chunks={"x": chunk, "y": chunk})
    if alone:
        return raster
    if raster.sizes["band"] == 1:
        return raster.squeeze("band", drop=True).rename(path.stem)
    return raster.assign_coords(band=[f"{path.stem}_{number}" for number in raster.band.values])
