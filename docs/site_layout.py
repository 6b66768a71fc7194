"""Fit pages to the site: Mermaid blocks as `draw_mermaid` has drawn them, and tables."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from docutils import nodes
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

from draw_mermaid import HERE, name_of

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata


class Mermaid(SphinxDirective):
    """A Mermaid block: its drawing, or its text as long as it has none."""

    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the picture, and its text for readers that do not show pictures."""
        text = "\n".join(self.content)
        name = name_of(text)
        if not (HERE / f"{name}.svg").exists():
            return [nodes.literal_block(text, text, language="text")]
        picture = nodes.image(uri=f"/{HERE.name}/{name}.svg", alt=text)
        return [nodes.container("", picture, classes=["drawing"])]


class Breaks(SphinxPostTransform):
    """Break long code in tables after underscores, dots and brackets, where there is no room."""

    default_priority = 400
    formats = ("html",)

    def run(self, **_: object) -> None:
        """Put a place to break between the words of each name that is long."""
        for table in self.document.findall(nodes.table):
            for code in list(table.findall(nodes.literal)):
                text = code.astext()
                if len(text) <= 20:
                    continue
                code.clear()
                for word in re.findall(r"[^_./(]*(?:[_./(]+|$)", text):
                    code += [nodes.Text(word), nodes.raw("", "<wbr>", format="html")]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Take part in a build."""
    app.add_directive("mermaid", Mermaid)
    app.add_post_transform(Breaks)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
