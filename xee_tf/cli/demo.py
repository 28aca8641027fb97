"""``xee-tf demo``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from xee_tf import demo as public
from xee_tf.cli.options import described_by

__all__ = ["demo"]

Folder = Parameter(metavar="FOLDER")


@described_by(public.run)
def demo(
    *,
    output: Annotated[str, Folder] = "demo-output",
    data: Annotated[str | None, Folder] = None,
    epochs: int = 60,
) -> None:
    """Export a real scene, train a model on it, predict, and draw what was predicted.

    A Landsat scene and a land-cover map are exported as TFRecord, a small U-Net is trained, and its
    predictions become georeferenced rasters; about a minute on two cores.
    """
    public.run(output, data=data, epochs=epochs)
