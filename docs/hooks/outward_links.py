"""Links from docs/ to files of the repository work in the repository; the site shows their text alone.

Run by mkdocs for every page. A link to a file that does not exist stays, and fails the strict build.
"""

import re
from pathlib import Path
from typing import Any

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!\w+:|#)([^)#\s]+)(#[^)\s]*)?\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:  # noqa: ANN401 - mkdocs' own types
    """Return the page without links that lead out of docs/."""
    docs = Path(config["docs_dir"]).resolve()
    here = (docs / page.file.src_uri).parent

    def within(match: re.Match[str]) -> str:
        target = (here / match[2]).resolve()
        leads_out = target.exists() and not target.is_relative_to(docs)
        return match[1] if leads_out else match[0]

    return LINK.sub(within, markdown)
