"""Docstrings, comments and texts are plain technical English, as far as a program can tell.

``DONE`` lists the folders and modules that follow the rules. Add a folder here when its prose is rewritten.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

from tests.support.markdown import without_blocks
from tests.support.processes import ROOT

DONE = (
    *("app", "benchmarks", "config", "docs"),
    *(f"channelsq/{each}" for each in ("binding", "core", "delivery", "diagnostics", "doctor", "generic", "http")),
    *(f"channelsq/{each}" for each in ("management", "operations", "security", "session_support", "system_checks")),
    *(f"channelsq/{each}" for each in ("ipc", "layers", "redis_core", "redis_io", "transport")),
    *(f"channelsq/{each}" for each in ("contrib", "matching", "templatetags", "test", "tests", "worker")),
    *(str(module.relative_to(ROOT)) for module in sorted((ROOT / "channelsq").glob("*.py"))),
    "channelsq/interface",
)
#: Code of contributors: summaries of functions and classes are not headless there.
OF_CONTRIBUTORS = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / ".ci").glob("*.py"))]
DOCS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "benchmarks").glob("*.md"))]

#: Words that begin a headless clause or a description where an imperative verb must stand.
HEADLESS = {"what", "who", "whom", "whose", "whoever", "whatever", "whether", "how", "where", "when", "which", "why"}
NOT_IMPERATIVE = HEADLESS | {
    *("a", "an", "the", "this", "that", "these", "those", "it", "its", "one", "all", "as", "also", "if", "for", "to"),
    *("no", "not", "nothing", "none", "nobody", "only", "never", "always", "true", "false", "is", "are", "has", "by"),
}
#: Verbs in the imperative that end with an s.
ENDS_WITH_S = {
    "pass",
    "process",
    "compress",
    "decompress",
    "press",
    "address",
    "discuss",
    "express",
    "suppress",
    "cross",
}

BANNED = re.compile(
    r"\b(whoever|whomever|nobody|anybody|that which|(?:is|are) to be|that (?:is|are) (?-i:none))\b|^gives\b(?! up)",
    re.IGNORECASE | re.MULTILINE,
)
#: A sentence of the documentation has at most this number of words; 25 are enough for nearly all.
LONGEST_SENTENCE = 40


def modules() -> list[Path]:
    """Return the modules of ``DONE``."""
    paths = [ROOT / each for each in DONE]
    return [module for path in paths for module in (sorted(path.rglob("*.py")) if path.is_dir() else [path])]


def is_attribute(node: ast.AST) -> bool:
    """Return whether a function is read as an attribute, so that its summary is a noun phrase."""
    decorators = getattr(node, "decorator_list", [])
    names = {getattr(each, "attr", getattr(each, "id", "")) for each in decorators}
    return bool(names & {"property", "cached_property", "setter"})


def summaries(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Yield line, first word and whether it must be a verb, of each docstring in ``tree``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                verb = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not is_attribute(node)
                yield getattr(node, "lineno", 1), re.split(r"[\s,:;.]", text, maxsplit=1)[0], verb


def misplaced(text: str) -> Iterator[str]:
    """Yield the arguments that a docstring lists deeper than its first one, so that they read as a part of it."""
    for block in re.findall(r"^ *Args:\n((?: +\S.*\n?)+)", text, re.MULTILINE):
        lines = block.splitlines()
        first = len(lines[0]) - len(lines[0].lstrip())
        yield from (
            line.strip() for line in lines if re.match(rf" {{{first + 1},}}\*{{0,2}}[a-z_]+(, [a-z_]+)*: \S", line)
        )


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of each comment and each string in ``source`` that is a phrase."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("#: ")


def test_summaries_begin_with_a_verb_or_a_noun() -> None:
    bad = []
    for module in modules():
        for line, word, verb in summaries(ast.parse(module.read_text())):
            lower = word.lower()
            third_person = lower.endswith("s") and lower not in ENDS_WITH_S
            if lower in HEADLESS or (verb and (lower in NOT_IMPERATIVE or third_person)):
                bad.append(f"{module.relative_to(ROOT)}:{line}: {word} …")
    assert bad == []


def test_summaries_of_tests_are_not_headless() -> None:
    bad = [
        f"{module.relative_to(ROOT)}:{line}: {word} …"
        for module in OF_CONTRIBUTORS
        for line, word, _ in summaries(ast.parse(module.read_text()))
        if word.lower() in HEADLESS
    ]
    assert bad == []


def test_comments_of_scripts_are_not_headless() -> None:
    """JavaScript's summaries stand in comments: ``/** …``, ``/* …``."""
    bad = [
        f"{script.relative_to(ROOT)}: {word} …"
        for script in sorted((ROOT / "channelsq").rglob("*.js"))
        for word in re.findall(r"^\s*/\*+\s+(\w+)", script.read_text(), re.MULTILINE)
        if word.lower() in HEADLESS
    ]
    assert bad == []


def test_arguments_stand_in_one_column() -> None:
    bad = [
        f"{module.relative_to(ROOT)}:{node.lineno}: {each}"
        for module in modules()
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        for each in misplaced(ast.get_docstring(node) or "")
    ]
    assert bad == []


def test_texts_name_their_actors() -> None:
    bad = []
    for module in modules():
        for line, text in texts(module.read_text()):
            if match := BANNED.search(text):
                part = text[max(0, match.start() - 30) : match.end() + 30]
                bad.append(f"{module.relative_to(ROOT)}:{line}: {match[0]!r} in {part!r}")
    assert bad == []


def sentences(page: Path) -> Iterator[str]:
    """Yield the sentences of a page: of its paragraphs, items and cells, without code and addresses."""
    text = re.sub(r"<!--.*?-->", "", without_blocks(page), flags=re.DOTALL)
    text = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", text))
    for paragraph in re.split(r"\n\s*\n|\n(?=\s*(?:[-*]|\d+\.) )|\n(?=[|#])|(?<=\|)\n", text):
        for part in paragraph.strip().strip("|").split(" | ") if paragraph.lstrip().startswith("|") else [paragraph]:
            yield from re.split(r"(?<=[.!?;])[)\"]?\s+|\s·\s", " ".join(part.split()))


def test_sentences_of_the_documentation_are_short() -> None:
    long = [
        f"{page.relative_to(ROOT)}: {each}"
        for page in DOCS
        for each in sentences(page)
        if len(re.findall(r"\w\S*", each)) > LONGEST_SENTENCE
    ]
    assert long == []


def test_the_documentation_names_its_actors() -> None:
    bad = [f"{page.relative_to(ROOT)}: {each}" for page in DOCS for each in sentences(page) if BANNED.search(each)]
    assert bad == []
