"""The checks that run where the repository is hosted, and before a commit: they know what the project promises."""

from __future__ import annotations

import re
import tomllib

from tests.support.processes import ROOT

CI = "".join(path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")))
HOOKS = (ROOT / ".pre-commit-config.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def promised(stem: str) -> set[str]:
    """Return the versions among the classifiers of the package."""
    found = (re.fullmatch(re.escape(stem) + r" :: (\d+\.\d+)", each) for each in PROJECT["classifiers"])
    return {match[1] for match in found if match}


def listed(key: str) -> set[str]:
    """Return the values of a list in the matrix of a job."""
    found = re.search(rf"^ +{key}: \[(.+)\]$", CI, re.MULTILINE)
    assert found is not None, key
    return {each.strip(' "') for each in found[1].split(",")}


def test_every_promised_version_is_checked() -> None:
    assert promised("Framework :: Django") == listed("django")
    assert promised("Programming Language :: Python") <= listed("python")


def test_every_command_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"make ([a-z-]+)", CI)) <= targets
    paths = re.findall(r"tests/[\w/.]+", CI + HOOKS) + re.findall(r"(?:bash|-m pytest[^\n]*?) (\.ci/\w+)", CI)
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
