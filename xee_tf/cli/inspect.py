"""``xee-tf inspect`` and ``xee-tf verify``."""

from __future__ import annotations

import xee_tf
from xee_tf.cli.command import command
from xee_tf.cli.options import Depths, FilePath, Size
from xee_tf.cli.outcome import Outcome, attributes, grid_values
from xee_tf.errors import RecordError

__all__ = ["inspect", "verify"]


@command(xee_tf.inspect)
def inspect(path: FilePath, /, *, kernel_size: Size = None, tensor_depths: Depths = None) -> Outcome:
    """Show the patches, georeference, bands and shards of an export, and check that it is complete.

    Example: xee-tf inspect out/scene

    Parameters
    ----------
    path
        Mixer, manifest, prefix or folder of an export, or a TFRecord file: a local path or an fsspec URL.
    """
    found = xee_tf.inspect(path, kernel_size=kernel_size, tensor_depths=tensor_depths)
    grid = {} if found.grid is None else grid_values(found.grid, "patch_dimensions")
    return Outcome(str(found), {**attributes(found, "path", "kind", "names", "files", "records"), **grid})


@command(xee_tf.verify)
def verify(path: FilePath, /) -> Outcome:
    """Read all files of an export, and compare them with its manifest.

    The exit status is 1 if a file is missing, damaged or from another export.

    Example: xee-tf verify out/scene

    Parameters
    ----------
    path
        Mixer, manifest, prefix or folder of one or more exports, or a TFRecord file: a local path or a URL of
        fsspec.
    """
    report = xee_tf.verify(path)
    values = attributes(report, "ok", "names", "files", "records", "bytes", "described", "problems")
    problem = None
    try:
        report.raise_for_problems()
    except RecordError as error:
        problem = error
    return Outcome(str(report), values, problem)
