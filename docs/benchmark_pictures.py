"""A plot and a table of the measurements in benchmarks.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

__all__ = ["as_html"]

BETTER, WORSE, GOAL = "#3a9d5d", "#e08a1e", "currentColor"
_LEAST = 1e-3  # where smaller ratios are drawn, such as no bytes at all
_LEFT, _WIDTH, _ROW = 370, 300, 46


def as_html(report: dict[str, Any]) -> str:
    """Return the plot of all ratios, the table of all measurements, and the machine."""
    machine = report["machine"]
    measurements = report["measurements"]
    ratios = [each for each in measurements if each["unit"] == "times"]
    where = f"{machine['cores']} cores{', ' + machine['processor'] if machine['processor'] else ''}"
    small = " with small sizes, which are not representative" if report["small"] else ""
    return (
        f"<p>Measured on a machine with {escape(where)}, Python {escape(machine['python'])}{small}.</p>"
        f'<div class="drawing">{_plot(ratios) if ratios else ""}</div>{_table(measurements)}'
    )


def _plot(measurements: Sequence[dict[str, Any]]) -> str:
    """Draw each ratio as a bar from 1, the baseline, on a logarithmic axis, with its goal as a tick."""
    values = [value for each in measurements for value in (each["value"], each["goal"], 1)]
    low, high = (math.log10(max(value, _LEAST)) for value in (min(values), max(values)))
    low, high = low - 0.05, high + 0.2

    def place(value: float) -> float:
        return _LEFT + _WIDTH * (math.log10(max(value, _LEAST)) - low) / (high - low)

    parts = []
    steps = (1, 2, 5) if high - low < 2 else (1,)
    for value in (step * 10**power for power in range(-3, 5) for step in steps):
        if low <= math.log10(value) <= high:
            x, height = place(value), _ROW * len(measurements)
            strong = "stroke-width:1.5" if value == 1 else "stroke-opacity:.2"
            parts.append(
                f'<line x1="{x:.1f}" y1="0" x2="{x:.1f}" y2="{height}" style="stroke:currentColor;{strong}"/>'
            )
            parts.append(_text(x, height + 20, f"{value:g}", "middle"))
    for number, each in enumerate(measurements):
        top = _ROW * number
        begin, end = sorted((place(1), place(each["value"])))
        color = BETTER if each["passed"] else WORSE
        parts.append(
            f'<rect x="{begin:.1f}" y="{top + 12}" width="{max(end - begin, 1.5):.1f}" height="18" '
            f'style="fill:{color};fill-opacity:.75"/>'
        )
        goal = place(each["goal"])
        parts.append(
            f'<line x1="{goal:.1f}" y1="{top + 8}" x2="{goal:.1f}" y2="{top + 34}" '
            f'style="stroke:{GOAL};stroke-width:2;stroke-dasharray:3 2"/>'
        )
        parts.append(
            _text(place(max(each["value"], 1, each["goal"])) + 8, top + 26, f"{each['value']:.3g}", "start")
        )
        lines = _wrapped(each["name"])
        for line, text in enumerate(lines):
            parts.append(_text(_LEFT - 44, top + 26 + 15 * line - 7 * (len(lines) - 1), text, "end"))
        parts.append(_text(_LEFT - 26, top + 26, "▲" if each["higher_is_better"] else "▼", "middle"))
    height = _ROW * len(measurements) + 34
    label = "Ratios to the baseline on a logarithmic axis"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" '
        f'viewBox="0 -6 {_LEFT + _WIDTH + 70} {height + 6}" style="width:100%;height:auto;color:inherit">'
        f"<title>{label}</title>{''.join(parts)}</svg>"
    )


def _wrapped(text: str, most: int = 46) -> list[str]:
    """Break a name into at most two lines."""
    if len(text) <= most:
        return [text]
    space = text.rfind(" ", 0, most)
    rest = text[space + 1 :]
    return [text[:space], rest if len(rest) <= most else rest[: most - 1] + "…"]


def _table(measurements: Sequence[dict[str, Any]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(each['name'])}</td><td>{escape(each['baseline'])}</td>"
        f"<td>{each['value']:.3g} {escape(each['unit'])}</td>"
        f"<td>{'≥' if each['higher_is_better'] else '≤'} {each['goal']:g}</td>"
        f"<td>{escape(each['note'])}</td></tr>"
        for each in measurements
    )
    head = "".join(f"<th>{name}</th>" for name in ("measured", "compared with", "result", "goal", "figures"))
    return (
        '<div class="pst-scrollable-table-container"><table class="table">'
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    style = f"font-size:13px;fill:currentColor;text-anchor:{anchor}"
    return f'<text x="{x:.1f}" y="{y:.1f}" style="{style}">{escape(text)}</text>'
