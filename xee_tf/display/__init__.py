"""How plans and results look: plain text, HTML, and a picture of the patch grid."""

from xee_tf.display.html import plan_html, result_html, table_html
from xee_tf.display.svg import grid_svg
from xee_tf.display.text import plan_text, result_text, table_text

__all__ = [
    "grid_svg",
    "plan_html",
    "plan_text",
    "result_html",
    "result_text",
    "table_html",
    "table_text",
]
