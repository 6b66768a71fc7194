"""Show Mermaid blocks as the drawings that `draw_mermaid` has made of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docutils import nodes
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
        return [nodes.image(uri=f"/{HERE.name}/{name}.svg", alt=text, classes=["drawing"])]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Take part in a build."""
    app.add_directive("mermaid", Mermaid)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
