"""The documentation as a site, built by Sphinx: ``make docs`` writes it to ``build/docs/``.

The pages are plain Markdown that also reads well in a repository browser, without directives of Sphinx. Two steps
replace those directives while a page is read: a page that lists others becomes their table of contents, and a link that
leaves ``docs/`` leads to the file in the repository.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from channelsq.version import __version__

DOCS = Path(__file__).parents[1]
ROOT = DOCS.parent

#: Where the repository's files are shown. A build of a release shows them at its tag.
REPOSITORY = "https://github.com/channelsq/channelsq"
TAG = os.environ.get("DOCS_REF", "main")

#: The address of the site, for canonical links; a build to look at locally has none.
ADDRESS = os.environ.get("DOCS_URL", "")

#: Pages whose tables and lists of links are tables of contents.
LISTS = ("index", "reference/api/index", "explanation/decisions/decisions")

#: Pages that only point at a file of the repository's root; the site shows that file instead.
SHOWN = {"contributing/contributing": "CONTRIBUTING.md", "contributing/changelog": "CHANGELOG.md"}

_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)

project = "channelsq"
author = "the channelsq contributors"
project_copyright = "the channelsq contributors, BSD 3-Clause"
release = version = __version__

extensions = ["myst_parser", "sphinx_copybutton", "sphinxext.opengraph"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["examples/**", "site/**"]
nitpicky = True
suppress_warnings = ["misc.highlighting_failure"]  # JSON and Python with "…" in it
myst_heading_anchors = 4
copybutton_exclude = ".linenos, .gp, .go"

ogp_site_url = html_baseurl = ADDRESS
ogp_enable_meta_description = True  # from the first sentences of each page

html_theme = "furo"
html_title = f"channelsq {release}"
html_static_path = ["static"]
html_favicon = "static/icon.svg"
html_css_files = ["site.css"]
html_js_files = [("site.js", {"defer": "defer"})]
html_copy_source = False
html_show_sphinx = False
html_theme_options = {
    "top_of_page_buttons": [],
    "light_css_variables": {"color-brand-primary": "#0b6b4f", "color-brand-content": "#0b6b4f"},
    "dark_css_variables": {"color-brand-primary": "#4fd1a5", "color-brand-content": "#4fd1a5"},
}

linkcheck_anchors = False
linkcheck_ignore = [r"http://127\.0\.0\.1.*", r"http://localhost.*"]


def outside_fences(text: str, pattern: re.Pattern[str], change: object) -> str:
    """Return ``text`` with ``change`` applied to the matches of ``pattern`` that are not in a fenced block."""
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [pattern.sub(change, text[end : fence.start()]), fence[0]]  # type: ignore[call-overload]
        end = fence.end()
    return "".join([*parts, pattern.sub(change, text[end:])])  # type: ignore[call-overload]


def contents(docname: str, text: str) -> str:
    """Return the directives for the tables of contents of a page, one for each of its sections with links."""
    found = []
    for section in re.split(r"^## ", _FENCE.sub("", text), flags=re.MULTILINE)[1:] or [text]:
        caption = section.partition("\n")[0]
        rows = [line for line in section.splitlines() if line.startswith(("| [", "- [", "| API"))]
        names = [_LINK.search(row) for row in rows]
        entries = [
            f"{name[1] if '.' in name[1] else name[1][0].upper() + name[1][1:]} <{name[2].removesuffix('.md')}>"
            for name in names
            if name and "://" not in name[2] and not name[2].startswith("../")
        ]
        if entries:
            titled = f":caption: {caption}\n" if docname == "index" else ""
            found.append("```{toctree}\n:hidden:\n" + titled + "\n" + "\n".join(entries) + "\n```\n")
    return "\n".join(found)


def read_page(_app: Sphinx, docname: str, source: list[str]) -> None:
    """Make a page of the repository a page of the site."""
    folder = DOCS / Path(docname).parent
    text = source[0]
    if docname in SHOWN:
        folder = ROOT
        text = (ROOT / SHOWN[docname]).read_text()
    here = DOCS / Path(docname).parent

    def link(match: re.Match[str]) -> str:
        title, target = match[1], match[2]
        file, hash_, anchor = target.partition("#")
        if not file or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = (folder / file).resolve()
        inside = path.is_relative_to(DOCS) and not path.is_relative_to(DOCS / "examples")
        shown = {ROOT / root: f"{name}.md" for name, root in SHOWN.items()}.get(path)
        if shown:
            return f"[{title}]({os.path.relpath(DOCS / shown, here)}{hash_}{anchor})"
        if inside:
            return f"[{title}]({os.path.relpath(path, here)}{hash_}{anchor})"
        kind = "tree" if path.is_dir() else "blob"
        return f"[{title}]({REPOSITORY}/{kind}/{TAG}/{path.relative_to(ROOT).as_posix()}{hash_}{anchor})"

    more = contents(docname, text) if docname in LISTS else ""
    source[0] = outside_fences(text, _LINK, link).rstrip() + "\n\n" + more


_EMPTY_HEADER = '<th class="head"><p></p></th>'
_SUBJECT = '<span class="visually-hidden">subject</span>'


def complete_page(_app: Sphinx, _name: str, _template: str, context: dict[str, Any], _tree: object) -> None:
    """Mend two faults of the generated HTML: headings without a level, and header cells without text."""
    for part in ("furo_navigation_tree", "body"):
        if part in context:
            text = context[part].replace('role="heading">', 'role="heading" aria-level="2">')
            context[part] = text.replace(_EMPTY_HEADER, _EMPTY_HEADER.replace("<p></p>", _SUBJECT))


def setup(app: Sphinx) -> dict[str, bool]:
    """Connect the steps that read and write pages."""
    app.connect("source-read", read_page)
    app.connect("html-page-context", complete_page, priority=900)  # after Furo has added its navigation
    return {"parallel_read_safe": True, "parallel_write_safe": True}
