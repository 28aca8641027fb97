"""``xee-tf inspect``."""

from __future__ import annotations

import xee_tf
from xee_tf.cli.options import Depths, Flag, Size, inherit_descriptions

__all__ = ["inspect"]


@inherit_descriptions(xee_tf.inspect)
def inspect(
    path: str,
    /,
    *,
    kernel_size: Size = None,
    tensor_depths: Depths = None,
    verify: Flag = False,
) -> None:
    """Show the patches, georeference, bands and shards of an export, and check that it is complete.

    Parameters
    ----------
    path
        Mixer, manifest, prefix or folder of an export, or a TFRecord file: a local path or an fsspec URL.
    verify
        Read all files and compare their checksums. The exit status is 1 if one does not match.
    """
    if verify:
        report = xee_tf.verify(path)
        print(report)
        report.raise_for_problems()
        return
    print(xee_tf.inspect(path, kernel_size=kernel_size, tensor_depths=tensor_depths))
