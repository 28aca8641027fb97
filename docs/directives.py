"""Sphinx directives of this site, and links from names in code font to the reference."""

from __future__ import annotations

import inspect
import json
import re
from html import escape
from pathlib import Path
from typing import Any

import benchmark_pictures
import drawings
from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.transforms import SphinxTransform
from sphinx.util.docutils import SphinxDirective

import xee_tf
from xee_tf import demo, typing

ROOT = Path(__file__).parents[1]


class Drawing(SphinxDirective):
    """Draw a figure of `drawings.py` into the page, so that it has the colors of the page.

    ::

        :::{drawing} halo
        The caption.
        :::
    """

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the HTML."""
        svg = drawings.DRAWINGS[self.arguments[0]]()
        self.env.note_dependency(drawings.__file__)
        figure = nodes.container(classes=["drawing"])
        figure += nodes.raw("", svg, format="html")
        if self.content:
            caption = nodes.container(classes=["drawing-caption"])
            self.state.nested_parse(self.content, self.content_offset, caption)
            figure += caption
        return [figure]


class Benchmarks(SphinxDirective):
    """Plot the measurements in benchmarks.json, and list them in a table."""

    has_content = False

    def run(self) -> list[nodes.Node]:
        """Return the HTML."""
        file = ROOT / "benchmarks.json"
        self.env.note_dependency(str(file))
        html = benchmark_pictures.as_html(json.loads(file.read_text()))
        return [nodes.raw("", html, format="html")]


class Landing(SphinxDirective):
    """Show the pictures of `pictures.py`, with the legend of the classes."""

    def run(self) -> list[nodes.Node]:
        """Return the HTML."""
        legend = "".join(
            f'<span style="--swatch:{color}">{escape(name)}</span>' for name, color in demo.CLASSES.values()
        )
        figures = [
            f'<figure><img src="_static/landing-{name}.webp" alt="{text}"/>'
            f"<figcaption><b>{title}</b> {text}{more}</figcaption></figure>"
            for name, title, text, more in (
                ("grid", "A raster, in patches.", "A Landsat scene; two patches with their margins.", ""),
                ("patches", "Training.", "Patches with margins, and the labels of their inner parts.", ""),
                (
                    "map",
                    "A map.",
                    "Land cover as a small U-Net predicts it, on the grid of the raster.",
                    f'<div class="legend">{legend}</div>',
                ),
            )
        ]
        html = f'<div class="steps">{"<div class=arrow>➜</div>".join(figures)}</div>'
        return [nodes.raw("", html, format="html")]


class TypeAliases(SphinxDirective):
    """List the types of xee_tf.typing that are not classes, with what they stand for."""

    def run(self) -> list[nodes.Node]:
        """Return the HTML."""
        rows = ""
        for name in typing.__all__:
            alias = getattr(typing, name)
            if not inspect.isclass(alias) or alias is Any:
                text = re.sub(r"\b(?:\w+\.)+(?=\w)", "", str(alias))
                text = (
                    f"<code>{escape(text)}</code>"
                    if len(text) < 160 and "_" not in text
                    else "see where it is used"
                )
                rows += f"<tr><td><code>{name}</code></td><td>{text}</td></tr>"
        return [nodes.raw("", f'<table class="table"><tbody>{rows}</tbody></table>', format="html")]


class LinkNames(SphinxTransform):
    """Link `xee_tf.tf_dataset`, `Model.plan` or `ds.tfexport.table` in code font to the reference."""

    default_priority = 400

    def apply(self) -> None:
        """Replace the names by references."""
        for literal in list(self.document.findall(nodes.literal)):
            inside_link = isinstance(literal.parent, (nodes.reference, addnodes.pending_xref, nodes.title))
            target = None if inside_link or literal.get("classes") else public_name(literal.astext())
            if target is not None:
                literal.replace_self(self._link(target, literal.deepcopy()))
        # The types of parameters, and of what is raised, as numpydoc writes them.
        for node in [*self.document.findall(nodes.classifier), *self.document.findall(nodes.term)]:
            if len(node.children) == 1 and isinstance(node.children[0], nodes.Text):
                words = re.split(r"(\w+)", node.astext())
                if any(map(is_public, words)):
                    node.children = []
                    node += [
                        self._link(f"xee_tf.{word}", nodes.inline("", word))
                        if is_public(word)
                        else nodes.Text(word)
                        for word in words
                    ]

    def _link(self, target: str, text: nodes.Node) -> nodes.Node:
        link = addnodes.pending_xref("", text, refdomain="py", reftype="obj", reftarget=target)
        link.attributes |= {"refexplicit": True, "refwarn": True, "refdoc": self.env.docname}
        return link


def is_public(word: str) -> bool:
    """Return whether a word is the name of a public class."""
    return word != "typing" and word in xee_tf.__all__ and inspect.isclass(getattr(xee_tf, word))


def public_name(text: str) -> str | None:
    """Return the full name of what is documented in the reference, such as "xee_tf.Model.plan".

    Calls are links, too: ``to_cog``, ``to_cog()`` and ``xee_tf.to_cog(classes, "classes.tif")``.
    """
    found = re.fullmatch(r"([\w.]+)(\(.*\))?", text, flags=re.DOTALL)
    if found is None:
        return None
    name = found[1]
    if re.match(r"(\w+|\.\.\.)\.tfexport\b", name):
        name = "TFExportAccessor" + name.partition(".tfexport")[2]
    if name in ("inspect", "serve", "verify"):  # words that also mean something else
        return None
    first, _, member = name.removeprefix("xee_tf.").removeprefix("ee.").partition(".")
    if name.startswith("ee.") or first not in xee_tf.__all__ or first == "typing":
        return None
    if not member:
        return f"xee_tf.{first}"
    kind = getattr(xee_tf, first)
    described = inspect.getdoc(getattr(kind, member, None)) or member in getattr(kind, "__annotations__", {})
    return f"xee_tf.{first}.{member}" if described and "." not in member else None


def link_field(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, text: nodes.TextElement
) -> nodes.reference | None:
    """Link a field of a dataclass, such as `TableResult.dropped`, to its class, which describes it."""
    names = node.get("reftarget", "").removeprefix("xee_tf.").split(".")
    if len(names) != 2 or names[1] not in getattr(getattr(xee_tf, names[0], None), "__annotations__", {}):
        return None
    domain = env.domains["py"]
    target = f"xee_tf.{names[0]}"
    return domain.resolve_xref(env, node["refdoc"], app.builder, "class", target, node, text)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directives."""
    app.add_directive("drawing", Drawing)
    app.add_directive("benchmarks", Benchmarks)
    app.add_directive("landing", Landing)
    app.add_directive("type-aliases", TypeAliases)
    app.add_transform(LinkNames)
    app.connect("missing-reference", link_field)
    return {"parallel_read_safe": True}
