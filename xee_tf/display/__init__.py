"""How objects look: rows of text, HTML, and a picture of a patch grid.

This room takes texts and numbers. What they are is decided beside the types that are shown.
"""

from xee_tf.display.summary import Listing, Summarised, Summary
from xee_tf.display.svg import GridPicture
from xee_tf.display.text import Facts, abbreviated, aligned, by, counted

__all__ = [
    "Facts",
    "GridPicture",
    "Listing",
    "Summarised",
    "Summary",
    "abbreviated",
    "aligned",
    "by",
    "counted",
]
