"""``xee-tf demo``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from xee_tf.cli.command import command
from xee_tf.cli.options import FilePath, Number
from xee_tf.cli.outcome import Outcome, attributes
from xee_tf.demo import run

__all__ = ["demo"]

Folder = Parameter(metavar="FOLDER")


@command(run)
def demo(
    *,
    output: Annotated[FilePath, Folder] = "demo-output",
    data: Annotated[FilePath | None, Folder] = None,
    epochs: Annotated[int, Number] = 60,
) -> Outcome:
    """Export a real scene, train a model on it, predict, and draw the predictions.

    A Landsat scene and a land-cover map are exported as TFRecords, a small U-Net is trained, and its
    predictions are converted to georeferenced rasters. This takes about a minute on two cores.
    """
    result = run(output, data=data, epochs=epochs)
    return Outcome("", attributes(result, "accuracy", "baseline", "files", "seconds"))
