"""``xee-tf inspect``."""

from __future__ import annotations

import xee_tf
from xee_tf.cli.options import Depths, Flag, Size, described_by

__all__ = ["inspect"]


@described_by(xee_tf.inspect)
def inspect(
    path: str,
    /,
    *,
    kernel_size: Size = None,
    tensor_depths: Depths = None,
    verify: Flag = False,
) -> None:
    """Show patches, place, bands and shards of an export, and check that it is complete.

    Parameters
    ----------
    verify
        Read every byte and compare checksums. The exit status is 1 if one is wrong.
    """
    if verify:
        report = xee_tf.verify(path)
        print(report)
        report.raise_for_problems()
        return
    print(xee_tf.inspect(path, kernel_size=kernel_size, tensor_depths=tensor_depths))
