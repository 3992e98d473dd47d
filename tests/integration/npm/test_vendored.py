"""The files of other projects in the package are those of their packages on npm."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.npm import npm_packages
from tests.support.processes import ROOT

VENDOR = ROOT / "channelsq" / "contrib" / "dashboard" / "static" / "channelsq" / "dashboard" / "vendor"


def test_the_charting_library_is_that_of_npm(tmp_path: Path) -> None:
    taken = json.loads((VENDOR / "vendored.json").read_text())
    modules = npm_packages(tmp_path, f"{taken['package']}@{taken['version']}")
    lock = json.loads((tmp_path / "package-lock.json").read_text())["packages"][f"node_modules/{taken['package']}"]
    # npm has compared the package's archive with this hash.
    assert lock["integrity"] == taken["integrity"]
    assert lock["license"] == taken["license"]
    for name, file in taken["files"].items():
        assert (VENDOR / name).read_bytes() == (modules / taken["package"] / file["from"]).read_bytes(), name
