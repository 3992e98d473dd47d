"""The contents of the documentation's pages: code blocks, links and tables."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ROOT

#: What stands before a block that the tests are to run, not only to compile.
RUNNABLE = "<!-- runnable -->"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"\*\*`([^`*]+)`\*\*\n\n\Z")
_NUMBERED = re.compile(r"^## (\d+)\. ", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def doc_page(name: str) -> Path:
    """Return the page ``name`` of the documentation, in whichever folder it lies; names are unique below ``docs/``."""
    (path,) = (path for path in (ROOT / "docs").rglob(f"{name}.md") if "api" not in path.parts)
    return path


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    language: str
    text: str
    #: The file that it shows in full (its name stands above it, alone and bold), or "".
    file: str
    runnable: bool
    #: Where it begins in its page, counted from 1.
    line: int


def blocks(page: Path) -> list[Block]:
    """The code blocks of ``page``, in order."""
    text = page.read_text()
    found = []
    for match in _FENCE.finditer(text):
        before = text[: match.start()]
        file = _FILE.search(before)
        found.append(
            Block(
                match[1],
                match[2],
                file[1] if file else "",
                before.endswith(RUNNABLE + "\n"),
                before.count("\n") + 1,
            )
        )
    return found


def sections(page: Path) -> dict[int, list[Block]]:
    """Return the code blocks below each numbered heading of ``page``, such as ``## 2. Two windows``."""
    text = page.read_text()
    begins = {int(match[1]): text.count("\n", 0, match.start()) for match in _NUMBERED.finditer(text)}
    found: dict[int, list[Block]] = {number: [] for number in begins}
    for block in blocks(page):
        before = [number for number, line in begins.items() if line < block.line]
        if before:
            found[before[-1]].append(block)
    return found


def applied(diff: str, text: str) -> str:
    """Return ``text`` after a diff block of a page, which shows each place with its neighbouring lines.

    Raises:
        AssertionError: the lines before the change do not stand in the text, or stand there twice.
    """
    lines = diff.splitlines()
    old = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("+"))
    new = "".join(f"{line[1:]}\n" for line in lines if not line.startswith("-"))
    assert text.count(old) == 1, f"these lines stand {text.count(old)} times in the file:\n{old}"
    return text.replace(old, new)


def without_blocks(page: Path) -> str:
    """The prose of ``page``."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[str]:
    """The targets of the links in the prose of ``page``."""
    return _LINK.findall(without_blocks(page))


def rows(page: Path) -> list[list[str]]:
    """The cells of every row of every table of ``page``, as they are written."""
    lines = (line.strip() for line in without_blocks(page).splitlines())
    return [
        [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line[1:-1])]
        for line in lines
        if line.startswith("|") and line.endswith("|") and not re.fullmatch(r"[|\s:-]+", line)
    ]
