"""Reprs of objects: rows of text, HTML, and a drawing of a patch grid.

This package formats text and numbers only; each class chooses the content of its own repr.
"""

from xee_tf.display.plot import SourcePicture, plot_grid, plot_sides
from xee_tf.display.sides import SidesPicture
from xee_tf.display.summary import Listing, Summarized, Summary
from xee_tf.display.svg import GridPicture
from xee_tf.display.text import Facts, abbreviated, aligned, by, counted, percent, quoted

__all__ = [
    "Facts",
    "GridPicture",
    "Listing",
    "SidesPicture",
    "SourcePicture",
    "Summarized",
    "Summary",
    "abbreviated",
    "aligned",
    "by",
    "counted",
    "percent",
    "plot_grid",
    "plot_sides",
    "quoted",
]
