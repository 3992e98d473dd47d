"""A plain installation is complete: the development tools must not hide a missing requirement."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import requires

import pytest

from tests.support.processes import ROOT


def name_of(requirement: str) -> str:
    """The package that a requirement is for."""
    match = re.match(r"[A-Za-z0-9_.-]+", requirement)
    assert match
    return match[0].lower().replace("_", "-")


def declared() -> set[str]:
    """Return the packages that pyproject.toml requires."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {name_of(requirement) for requirement in project["dependencies"]}


def pinned() -> set[str]:
    """Return the packages that requirements.txt installs."""
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return {name_of(line) for line in lines if line and not line.startswith("#")}


def test_what_kombus_redis_transport_needs_is_required() -> None:
    """It is an extra of Kombu's, which nothing here asks for: its range of redis versions is not ours."""
    needed = {name_of(each) for each in requires("kombu") or () if re.search(r"extra == .redis.", each)}
    assert "redis" in needed
    assert needed <= declared()
    assert needed <= pinned()


@pytest.mark.parametrize("name", sorted(declared()))
def test_everything_required_is_pinned_for_heroku(name: str) -> None:
    assert name in pinned()
