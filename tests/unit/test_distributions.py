"""The files of the two distributions, and the page that an index makes of README.md."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import pytest
from readme_renderer import markdown

from channelsq import __version__
from tests.support.markdown import doc_page
from tests.support.needs import missing
from tests.support.processes import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the source distribution and the wheel."""
    folder = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--directory", folder], cwd=ROOT, check=True, capture_output=True
    )
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> zipfile.ZipFile:
    (path,) = built.glob("*.whl")
    assert path.name == f"channelsq-{__version__}-py3-none-any.whl"
    return zipfile.ZipFile(path)


@pytest.fixture(scope="module")
def metadata(wheel: zipfile.ZipFile) -> Message:
    return message_from_bytes(wheel.read(f"channelsq-{__version__}.dist-info/METADATA"))


@pytest.fixture(scope="module")
def page(metadata: Message) -> str:
    """README.md as an index renders it."""
    assert metadata["Description-Content-Type"] == "text/markdown"
    payload = metadata.get_payload()
    assert isinstance(payload, str)
    html = markdown.render(payload)
    assert html is not None
    return html


def in_git() -> set[str]:
    """The files that git has, or would take."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.CalledProcessError):
        missing("this is no clone of the repository")
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


def test_the_source_distribution_is_the_repository(built: Path) -> None:
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        files = {each.name.partition("/")[2]: each for each in archive if each.isfile()}
    assert set(files) - {"PKG-INFO"} == in_git()
    assert {"Makefile", ".ci/run", "docs/index.md", "tests/conftest.py", "benchmarks/METHOD.md"} <= set(files)
    assert files["bin/release"].mode & 0o111


def test_the_wheel_is_the_package_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    about = f"channelsq-{__version__}.dist-info/"
    names = {name for name in wheel.namelist() if not name.startswith(about)}
    assert names == {name for name in in_git() if name.startswith("channelsq/")}
    # What no import would miss:
    assert "channelsq/py.typed" in names
    for suffix in (".lua", ".sql", ".js", "vendor/LICENSE"):
        assert any(name.endswith(suffix) for name in names), suffix
    assert {name.removeprefix(about) for name in wheel.namelist() if name.startswith(about)} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE",
    }  # fmt: skip


def test_the_wheels_entry_points(wheel: zipfile.ZipFile) -> None:
    written = wheel.read(f"channelsq-{__version__}.dist-info/entry_points.txt").decode()
    for group, points in PROJECT["entry-points"].items():
        assert f"[{group}]" in written
        for name, target in points.items():
            assert f"{name} = {target}" in written


def test_the_metadata(metadata: Message) -> None:
    urls = dict(each.split(", ", 1) for each in metadata.get_all("Project-URL") or ())
    assert set(urls) == {"Homepage", "Documentation", "Changelog", "Issues", "Security"}
    for name, url in urls.items():
        assert url.startswith(urls["Homepage"])
        _, _, path = url.partition("/blob/main/")
        assert not path or (ROOT / path).exists(), name
    assert metadata["Author"]
    assert metadata["License-Expression"] == "BSD-3-Clause"


def test_the_classifiers_are_the_versions_that_are_tested(metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier") or []
    oldest = PROJECT["requires-python"].removeprefix(">=")
    pythons = [each.rpartition(" ")[2] for each in classifiers if re.search(r"Python :: 3\.\d+$", each)]
    assert pythons[0] == oldest
    django = next(each for each in PROJECT["dependencies"] if each.startswith("django"))
    assert f"Framework :: Django :: {re.findall(r'[0-9.]+', django)[0]}" in classifiers


def test_the_page_has_tables_and_code(page: str) -> None:
    text = (ROOT / "README.md").read_text()
    assert page.count("<table>") == len(re.findall(r"^\| ---", text, re.MULTILINE))
    assert page.count("<pre") == len(re.findall(r"^```", text, re.MULTILINE)) / 2


def test_the_pages_links_lead_somewhere(page: str, metadata: Message) -> None:
    """An index has none of the files beside README.md."""
    home = next(each for each in metadata.get_all("Project-URL") or () if each.startswith("Homepage"))
    base = f"{home.partition(', ')[2]}/blob/v{__version__}/"
    links = re.findall(r'(?:href|src)="([^"]+)"', page)
    assert all(re.match("https?:|#", link) for link in links), links
    raw = base.replace("github.com", "raw.githubusercontent.com").replace("/blob", "")  # where pictures are files
    files = [link.removeprefix(base).removeprefix(raw) for link in links if link.startswith((base, raw))]
    assert {Path(file).suffix for file in files if f"{raw}{file}" in links} == {".png"}
    assert len(files) == len(re.findall(r"\]\((?![a-z]+:|#)", (ROOT / "README.md").read_text()))
    assert all((ROOT / file.partition("#")[0]).exists() for file in files)


# -- files of other projects; tests/integration/npm/ compares them with their package

VENDOR = ROOT / "channelsq" / "contrib" / "dashboard" / "static" / "channelsq" / "dashboard" / "vendor"


def test_vendored_files_are_those_that_were_taken() -> None:
    taken = json.loads((VENDOR / "vendored.json").read_text())
    assert set(taken["files"]) | {"vendored.json"} == {path.name for path in VENDOR.iterdir()}
    for name, file in taken["files"].items():
        assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == file["sha256"], name
    assert f"uPlot) {taken['version']} ({taken['license']})" in doc_page("dashboard").read_text()
    assert "Permission is hereby granted" in (VENDOR / "LICENSE").read_text()


# -- the npm package; tests/integration/npm/ packs and uses it

SCRIPTS = ROOT / "channelsq" / "static" / "channelsq" / "js"


def test_the_npm_package_has_the_version_and_the_files_of_the_browser_library() -> None:
    package = json.loads((ROOT / "npm" / "package.json").read_text())
    assert package["version"] == __version__
    assert set(package["files"]) == {path.name for path in SCRIPTS.iterdir()}
    assert package["license"] == PROJECT["license"]
    urls = [package["homepage"], package["repository"]["url"].removeprefix("git+"), package["bugs"]]
    assert all(url.startswith(PROJECT["urls"]["Homepage"]) for url in urls)
    named = [package["main"], package["types"], *package["exports"]["."].values()]
    assert {Path(each).name for each in named} < set(package["files"])


def test_the_browser_library_is_small() -> None:
    """Without its comments; a bundler makes it smaller yet."""
    text = re.sub(r"/\*.*?\*/|^\s*//.*?$", "", (SCRIPTS / "websocketbridge.js").read_text(), flags=re.S | re.M)
    assert len(gzip.compress(re.sub(r"\n\s*", "\n", text).encode(), 9)) < 8 * 1024


def test_each_member_in_the_types_is_in_the_library() -> None:
    """A test in tests/integration/npm/ compares the types as well, where npm is installed."""
    source = (SCRIPTS / "websocketbridge.js").read_text()
    members = set(re.findall(r"^  (?:readonly |static readonly )?(\w+)[?:(<]", types(), re.MULTILINE)) - {"constructor"}
    assert len(members) > 50
    assert not [name for name in members if not re.search(rf"\b{name}\b", source)]


def types() -> str:
    return (SCRIPTS / "websocketbridge.d.ts").read_text()
