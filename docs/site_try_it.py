"""Serve the page "Try it" with what it runs: CPython as WebAssembly (Pyodide), and our packages.

Pyodide is taken from the directory RETURNS_PIPELINE_PYODIDE, else from build/node_modules.
CONTRIBUTING.md has the command. Without it the page shows the pictures alone, and says so; under CI
the build fails.
"""

from __future__ import annotations

import json
import os
import shutil
from importlib.metadata import files
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

from docutils import nodes
from sphinx.errors import ExtensionError
from sphinx.util.docutils import SphinxDirective

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.util.typing import ExtensionMetadata

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGE = "try_it"
PYODIDE = "314.0.7"  # CPython 3.14
SERVED = (
    *("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm"),
    *("python_stdlib.zip", "pyodide-lock.json"),
)
PACKAGES = ("aiostream", "returns", "tenacity", "typing-extensions")
MISSING = (
    '<p class="try-it-missing"><em>This site was built without Pyodide, so the examples do not run '
    "here.</em></p>"
)


class Example(SphinxDirective):
    """An example by its name: its code and its picture, of which the content says what it shows."""

    has_content = True
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return both, to be made an editor by the page's script."""
        name = self.arguments[0]
        path = HERE / PAGE / f"{name}.py"
        self.env.note_dependency(path)
        code = path.read_text(encoding="utf-8")
        picture = nodes.image(uri=f"/windows/{name}.svg", alt=" ".join(self.content))
        return [
            nodes.container(
                "",
                nodes.literal_block(code, code, language="python"),
                nodes.container("", picture, classes=["drawing"]),
                ids=[name],
                classes=["try-it"],
            )
        ]


def pyodide() -> Path | None:
    """Return the directory of Pyodide, if it is there and of the version that is tested."""
    place = os.environ.get("RETURNS_PIPELINE_PYODIDE")
    found = Path(place) if place else ROOT / "build" / "node_modules" / "pyodide"
    about = found / "package.json"
    if about.is_file() and json.loads(about.read_text(encoding="utf-8"))["version"] == PYODIDE:
        return found
    if os.environ.get("CI"):
        raise ExtensionError(f"no Pyodide {PYODIDE} at {found}")
    return None


def sources() -> dict[str, Path]:
    """Return what an example imports, and the licences, by their names in an archive."""
    found = {path.name: path for path in (HERE / "draw_windows.py", HERE / "run_example.py")}
    for package in (*PACKAGES, "returns-pipeline"):
        for file in files(package) or []:
            about = file.parts[0].endswith(".dist-info")
            if ".." not in file.parts and (
                file.suffix == ".py"
                or (about and (file.name == "METADATA" or "LICENSE" in file.name))
            ):
                found[str(file)] = Path(str(file.locate()))
    for path in (ROOT / "returns_pipeline").rglob("*.py"):
        found[path.relative_to(ROOT).as_posix()] = path
    return found


def serve(app: Sphinx, failed: Exception | None) -> None:
    """Copy what the page's worker loads to its place on the site."""
    if failed or app.builder.format != "html":
        return
    place = Path(app.outdir) / "_static" / PAGE
    place.mkdir(parents=True, exist_ok=True)
    with ZipFile(place / "packages.zip", "w", ZIP_DEFLATED) as archive:
        for name, path in sorted(sources().items()):
            entry = ZipInfo(name)  # without a time: the same sources make the same archive
            entry.compress_type = ZIP_DEFLATED
            archive.writestr(entry, path.read_bytes())
    if found := pyodide():
        for name in SERVED:
            shutil.copyfile(found / name, place / name)


def equip(app: Sphinx, page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Load the script on the page, or say why it is not there."""
    if page != PAGE:
        return
    app.add_css_file("try_it.css")
    if pyodide():
        app.add_js_file("try_it.js", type="module")
    else:
        context["body"] = context["body"].replace("</h1>", f"</h1>{MISSING}", 1)


def outdated(*_: object) -> list[str]:
    """Write the page again in every build: Pyodide may have come or gone."""
    return [PAGE]


def setup(app: Sphinx) -> ExtensionMetadata:
    """Take part in a build."""
    app.add_directive("try-it", Example)
    app.connect("env-get-outdated", outdated)
    app.connect("html-page-context", equip)
    app.connect("build-finished", serve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
