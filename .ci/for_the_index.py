"""Make README and the metadata fit for the package index, in a checkout from which is built.

``python .ci/for_the_index.py https://HOST/OWNER/REPOSITORY TAG``

On the index, links relative to the repository lead nowhere. Only the forge knows the address of the
repository, so the release workflow passes it: README then links to the files of the release's tag,
and the metadata has the project's addresses.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path


def absolute(text: str, repository: str, tag: str) -> str:
    """Return a page whose relative links lead to the files of the repository at a tag."""
    return re.sub(r"\]\((?!\w+:|#)([^)]+)\)", rf"]({repository}/blob/{tag}/\1)", text)


def with_addresses(project: str, repository: str, tag: str) -> str:
    """Return the text of ``pyproject.toml`` with the addresses of the project."""
    addresses = {
        "Documentation": f"{repository}/blob/{tag}/docs/quick_start.md",
        "Source": repository,
        "Issues": f"{repository}/issues",
        "Changelog": f"{repository}/blob/{tag}/CHANGELOG.md",
    }
    rows = "".join(f'{name} = "{address}"\n' for name, address in addresses.items())
    next_table = "[project.optional-dependencies]"
    return project.replace(next_table, f"[project.urls]\n{rows}\n{next_table}")


def main(repository: str, tag: str) -> None:
    """Change both files of the working directory.

    Raises:
        SystemExit: The tag is not that of the version.
    """
    readme, project = Path("README.md"), Path("pyproject.toml")
    text = project.read_text(encoding="utf-8")
    if f'\nversion = "{tag.removeprefix("v")}"\n' not in text:
        sys.exit(f"the tag {tag} is not v and the version in pyproject.toml")
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), repository, tag), "utf-8")
    project.write_text(with_addresses(text, repository, tag), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
