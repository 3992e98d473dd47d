"""The reference in the documentation is what the docstrings say, and says something of everything."""

from __future__ import annotations

import importlib.util
import re
from types import ModuleType

import pytest

from tests.support.processes import ROOT
from tests.unit.test_exports import PUBLIC

OUTPUT = ROOT / "docs" / "reference" / "api"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """``docs/make_reference.py``."""
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pages(maker: ModuleType) -> dict[str, str]:
    found: dict[str, str] = maker.pages()
    return found


def test_the_reference_is_that_of_the_docstrings(pages: dict[str, str]) -> None:
    written = {page.name: page.read_text() for page in OUTPUT.glob("*.md")}
    assert written == pages, "run: make reference"


def test_the_reference_has_every_public_module(maker: ModuleType) -> None:
    assert set(PUBLIC) == maker.PUBLIC


def test_the_reference_says_something_of_every_public_name(pages: dict[str, str]) -> None:
    """Each name has a section with a sentence, or the module that has it is named."""
    silent = []
    for module, names in PUBLIC.items():
        (text,) = [page.partition(f"## {module}\n")[2] for page in pages.values() if f"\n## {module}\n" in page]
        text = text.partition("\n## ")[0]
        for name in names:
            section = text.partition(f"### {name}\n")[2].partition("\n### ")[0]
            prose = re.sub(r"```.*?```|^Bases: [^\n]*$", "", section, flags=re.DOTALL | re.MULTILINE).strip()
            if not prose and f"`{name}` (of `" not in text:
                silent.append(f"{module}.{name}")
    assert not silent
