"""The site's page of design notes lists them all, by the first line of each. Run by mkdocs."""

from pathlib import Path
from typing import Any


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Return design/README.md with a link to every note, other pages as they are."""
    if page.file.src_uri != "design/README.md":
        return markdown
    notes = sorted((Path(config["docs_dir"]) / "design").glob("[0-9]*.md"))
    links = [
        f"- [{note.read_text(encoding='utf-8').splitlines()[0].lstrip('# ')}]({note.name})"
        for note in notes
    ]
    return "\n".join([markdown, *links, ""])
