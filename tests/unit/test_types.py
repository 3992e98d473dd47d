"""Strict type checkers accept the code of users: README, tutorial, examples, the demo, ``tests/support/written.py``.

They refuse wrong code."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import playwright
import pytest

from tests.support.markdown import blocks
from tests.support.needs import missing
from tests.support.processes import ROOT, environment

pytestmark = pytest.mark.timeout(300)

#: Checkers keep here what they know of Django, Celery and channelsq, for the next time.
CACHE = ROOT / ".mypy_cache"

#: Each line is an error to every checker; else nothing that they accept would mean anything.
WRONG = """
from channelsq import Channel, Group, Message, Rout
from channelsq.auth import channel_session_user
from channelsq.generic.websockets import WebsocketConsumer
from channelsq.test import ChannelTestCase


@channel_session_user
def consumer(message: Message, room: str) -> int:
    message.reply_channel.sendd({"text": "x"})
    message.channel_sesion["x"] = 1
    message.channel_session.sav()
    Group("x").send("text")
    Channel(7)
    return "text"


consumer("no message", 7)


class Chat(WebsocketConsumer):
    def receive(self, text: str, **kwargs: str) -> None:
        self.send(txt=text)
        self.kwargs.nothing
        self.message.nothing


class Tests(ChannelTestCase):
    def test(self) -> None:
        self.get_next_message("x")["y"]
"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with everything that a page shows in full, of a user who has channelsq installed."""
    folder = tmp_path_factory.mktemp("written")
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        for block in blocks(page):
            file = block.file if page.stem == "chat" else ""
            if block.language != "python" or not (file or block.runnable):
                continue
            path = folder / (file or f"{page.stem.replace('-', '_').lower()}_{block.line}.py")
            path.parent.mkdir(exist_ok=True)
            path.write_text(block.text)
    shutil.copy(ROOT / "tests/support/written.py", folder)
    (folder / "wrong.py").write_text(WRONG)
    return folder


#: Where functions have types: elsewhere in the pages they have none, for those who are new.
TYPED = "readme_*.py", "written.py", "wrong.py", "app/*.py", "config/*.py"


def untyped(folder: Path) -> str:
    """The names of the modules whose functions have no types."""
    typed = {path for pattern in TYPED for path in folder.glob(pattern)}
    return ",".join(path.stem for path in folder.glob("*.py") if path not in typed)


def mypy(folder: Path, python: Path, *lines: str, checked_as: str = "", name: str) -> str:
    """Return mypy's output for a folder, with more lines of configuration; ``python`` runs it."""
    common = ("[mypy]", "strict = true", "explicit_package_bases = true", "show_error_codes = true", *lines)
    (folder / "mypy.ini").write_text("\n".join(common))
    args = ["-m", "mypy", "--python-executable", checked_as or str(python), "--cache-dir", str(CACHE / name), "."]
    ran = subprocess.run([python, *args], cwd=folder, env=environment(), capture_output=True, text=True, timeout=280)
    assert ran.returncode in (0, 1), ran.stdout + ran.stderr
    return ran.stdout


def installed(folder: Path, *packages: str) -> Path:
    """A Python that has channelsq installed, and these packages; without any all that this one has."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    for package in ("channelsq", *packages):
        (site / package).symlink_to(Path(str(__import__(package).__file__)).parent)
    if not packages:
        (site / "others.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin" / "python"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with everything."""
    return installed(tmp_path_factory.mktemp("python"))


def lines_of_wrong(*but: str) -> set[int]:
    """The numbers of the lines that are wrong, but for some that have a word."""
    words = ["Rout", "sendd", "sesion", "sav()", "send(", "Channel(7)", "return", "consumer(", "txt", "nothing", '"y"']
    lines = WRONG.splitlines()
    numbers = {
        number
        for number, line in enumerate(lines, 1)
        if any(word in line for word in words) and "def " not in line and not any(word in line for word in but)
    }
    assert len(numbers) == 12 - len(but)
    return numbers


def assert_only_wrong_is_wrong(found: list[tuple[str, int, str]], *but: str) -> None:
    """Check that nothing is reported but the lines that are wrong, and all of those."""
    assert [each for each in found if each[0] != "wrong.py"] == []
    assert {line for _, line, _ in found} == lines_of_wrong(*but)


def reported(output: str) -> Iterator[tuple[str, int, str]]:
    """File, line and message of each of mypy's errors."""
    for match in re.finditer(r"^(\S+?):(\d+): error: (.*)$", output, re.MULTILINE):
        yield match[1], int(match[2]), match[3]


DJANGO = "[mypy.plugins.django-stubs]", 'django_settings_module = "config.settings"'


def test_strict_mypy_accepts_what_users_write(written: Path, python: Path) -> None:
    untyped_lines = (
        f"[mypy-{untyped(written)}]",
        "disallow_untyped_defs = false",
        "disallow_incomplete_defs = false",
        "disallow_untyped_calls = false",
        "disallow_untyped_decorators = false",
    )
    output = mypy(written, python, "plugins = mypy_django_plugin.main", *DJANGO, *untyped_lines, name="written")
    assert_only_wrong_is_wrong([*reported(output)])


def test_strict_mypy_accepts_it_without_types_of_django_and_celery(written: Path, tmp_path: Path) -> None:
    """The installed channelsq has its own, and asks for no others."""
    bare = installed(tmp_path / "python", "django", "celery", "kombu")
    # What those who have no types of their libraries must turn off, whatever else they use.
    off = "ignore_missing_imports = true", "disallow_subclassing_any = false", "disallow_untyped_decorators = false"
    folder = tmp_path / "written"
    folder.mkdir()
    for path in (*written.glob("readme_*.py"), written / "written.py", written / "wrong.py"):
        shutil.copy(path, folder)
    output = mypy(folder, Path(sys.executable), *off, checked_as=str(bare), name="written-bare")
    assert_only_wrong_is_wrong([*reported(output)], "sav()")  # a session is Django's


def test_strict_mypy_accepts_the_demo(python: Path, tmp_path: Path) -> None:
    for name in ("app", "config"):
        shutil.copytree(ROOT / name, tmp_path / name)
    # Django's generic classes take no arguments at run time.
    lines = "plugins = mypy_django_plugin.main", "disable_error_code = type-arg", *DJANGO
    output = mypy(tmp_path, python, *lines, name="demo")
    assert [*reported(output)] == []
    assert "Success" in output


def test_pyright_accepts_what_users_write(written: Path, python: Path) -> None:
    for name in ("app", "config"):
        shutil.copytree(ROOT / name, written / "demo" / name)
    settings = {
        # Fields of models are of unknown types in strict mode: only mypy has a plugin for them.
        "typeCheckingMode": "standard",
        "strict": ["readme_*.py", "written.py"],
        "executionEnvironments": [{"root": "demo"}, {"root": "."}],
    }
    (written / "pyrightconfig.json").write_text(json.dumps(settings))
    program = shutil.which("pyright", path=str(Path(sys.executable).parent))
    node = Path(playwright.__file__).parent / "driver"
    if program is None or not (node / "node").exists():
        missing("there is no pyright, or no Node.js for it: pip install -e '.[dev]'")
    env = environment({"PATH": f"{node}{os.pathsep}{os.environ['PATH']}", "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"})
    ran = subprocess.run(
        [program, "--outputjson", "--pythonpath", str(python)],
        cwd=written, env=env, capture_output=True, text=True, timeout=280,
    )  # fmt: skip
    found = [
        (Path(each["file"]).relative_to(written).as_posix(), each["range"]["start"]["line"] + 1, each["message"])
        for each in json.loads(ran.stdout)["generalDiagnostics"]
        if each["severity"] == "error"
    ]
    assert_only_wrong_is_wrong(found)
