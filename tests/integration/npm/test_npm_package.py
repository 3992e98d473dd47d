"""The npm package in a project with Vite and TypeScript, as users have it."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from channelsq import __version__
from tests.support.needs import missing
from tests.support.processes import ROOT

pytestmark = [pytest.mark.timeout(300), pytest.mark.ways("other ways")]

SCRIPTS = ROOT / "channelsq" / "static" / "channelsq" / "js"

#: The bytes that a page loads of it, built and compressed.
MOST_BYTES = 8 * 1024

#: Pinned, as in pyproject.toml.
TOOLS = ["vite@8.4.0", "typescript@7.0.2"]

TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2023", "dom", "dom.iterable"],
        "types": [],
    },
    "include": ["src"],
}

PAGE = '<!doctype html><title>x</title><script type="module" src="/src/main.ts"></script>'

MAIN = """
import { ReconnectingSocket, WebSocketBridge, type LiveTask, type TaskError, type TextChange } from "channelsq";

const bridge = new WebSocketBridge({ minDelay: 100 });
bridge.connect(() => "/ws/");
bridge.listen((content: { started: string }, stream: null) => console.log(content.started, stream));
bridge.demultiplex("cards", (payload: number[], stream) => console.log(payload.length, stream.length));
bridge.addEventListener("waiting", ({ detail }) => console.log(detail.delay.toFixed()));
bridge.addEventListener("task", ({ detail }) => console.log(detail.id.length));
bridge.socket?.addEventListener("close", ({ code }) => console.log(code.toFixed(), ReconnectingSocket.OPEN));

const task: LiveTask<number> = bridge.task<number>("id:ticket");
task.onprogress = ({ done, total, text }) => console.log(done / (total ?? 1), text.length);
task.ontext = ({ piece, restarted }: TextChange) => console.log(piece.length, !restarted);
task.addEventListener("state", ({ detail }) => console.log(detail.state === "success"));
task.catch((error: TaskError) => console.log(error.state));
async function show(): Promise<number> {
  await task.cancel();
  return (await task).toFixed().length + (task.texts["answer"]?.length ?? 0);
}
show();
"""

WRONG = """
import { WebSocketBridge } from "channelsq";

const bridge = new WebSocketBridge({ minDelya: 100 });
bridge.listne();
bridge.task(7);
bridge.task("a").state = "success";
bridge.task("a").onprogress = (task: string) => {};
bridge.addEventListener("waiting", ({ detail }) => detail.dealy);
"""

#: A comparison of the written types with those of the source, in both directions.
COMPARED = """
import type * as Written from "channelsq";

type Bridge = InstanceType<typeof channelsq.WebSocketBridge>;
type Socket = InstanceType<typeof channelsq.ReconnectingSocket>;
type Task = ReturnType<Bridge["task"]>;
type Names<Type> = Extract<keyof Type, string>;
type Unwritten = {
  bridge: Exclude<Names<Bridge>, keyof Written.WebSocketBridge>;
  socket: Exclude<Names<Socket>, keyof Written.ReconnectingSocket>;
  sockets: Exclude<Names<typeof channelsq.ReconnectingSocket>, keyof typeof Written.ReconnectingSocket>;
  task: Exclude<Names<Task>, keyof Written.LiveTask>;
  module: Exclude<keyof typeof channelsq, keyof typeof Written>;
  options: Exclude<keyof typeof channelsq.ReconnectingSocket.DEFAULTS, keyof Written.SocketOptions>;
  written: Exclude<keyof Written.SocketOptions, keyof typeof channelsq.ReconnectingSocket.DEFAULTS>;
};
const unwritten: Record<keyof Unwritten, never> = {} as Unwritten;
const bridges: typeof Written.WebSocketBridge = channelsq.WebSocketBridge;
const sockets: typeof Written.ReconnectingSocket = channelsq.ReconnectingSocket;
declare const task: Task;
const tasks: Written.LiveTask = task;
const change: Written.TextChange = {} as Parameters<NonNullable<Task["ontext"]>>[0];
const states: Task["state"] = {} as Written.LiveTask["state"];
const changes: Parameters<NonNullable<Task["ontext"]>>[0] = {} as Written.TextChange;
const parameters: Parameters<typeof channelsq.WebSocketBridge.prototype.connect> =
  {} as Parameters<Written.WebSocketBridge["connect"]>;
const made: ConstructorParameters<typeof channelsq.ReconnectingSocket> =
  {} as ConstructorParameters<typeof Written.ReconnectingSocket>;
"""


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packed package."""
    if shutil.which("npm") is None:
        missing("no npm: install Node.js")
    folder = tmp_path_factory.mktemp("packed")
    done = run(sys.executable, ROOT / ".ci" / "npm.py", folder, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    return folder / f"channelsq-{__version__}.tgz"


@pytest.fixture(scope="module")
def app(packed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has the package installed."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "package.json").write_text(json.dumps({"name": "app", "private": True, "type": "module"}))
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    (folder / "index.html").write_text(PAGE)
    (folder / "src").mkdir()
    (folder / "src" / "main.ts").write_text(MAIN)
    done = run("npm", "install", "--silent", "--no-audit", "--no-fund", *TOOLS, packed, cwd=folder)
    if done.returncode:
        missing(f"npm cannot install {', '.join(TOOLS)}: {done.stdout[-500:]}")
    return folder


def compile_only(app: Path, text: str, *options: str) -> list[str]:
    """Return the errors of one more source."""
    path = app / "src" / "more.ts"
    path.write_text(text)
    try:
        return [line for line in run("npx", "tsc", *options, cwd=app).stdout.splitlines() if "error TS" in line]
    finally:
        path.unlink()


def test_the_package_has_its_files(packed: Path) -> None:
    with tarfile.open(packed) as archive:
        names = {name.removeprefix("package/") for name in archive.getnames()}
    written = json.loads((ROOT / "npm" / "package.json").read_text())["files"]
    assert names == {*written, "package.json", "README.md", "LICENSE"}


def test_a_users_sources_are_type_checked(app: Path) -> None:
    done = run("npx", "tsc", cwd=app)
    assert done.returncode == 0, done.stdout
    lines = {int(error.partition("(")[2].partition(",")[0]) for error in compile_only(app, WRONG)}
    assert lines == {4, 5, 6, 7, 8, 9}


def test_the_written_types_are_those_of_the_source(app: Path) -> None:
    script = app / "src" / "websocketbridge.js"
    shutil.copy(SCRIPTS / script.name, script)
    try:
        assert compile_only(app, COMPARED, "--allowJs", "--checkJs") == []
        wrong = COMPARED.replace("Exclude<Names<Task>, keyof Written.LiveTask>", "Names<Task>")
        assert len(compile_only(app, wrong, "--allowJs", "--checkJs")) == 1
    finally:
        script.unlink()


def test_vite_builds_it_and_it_is_small(app: Path) -> None:
    done = run("npx", "vite", "build", "--logLevel", "warn", cwd=app)
    assert done.returncode == 0, done.stdout
    (built,) = (app / "dist" / "assets").glob("*.js")
    assert "channelsq.task" in built.read_text()
    assert len(gzip.compress(built.read_bytes(), 9)) < MOST_BYTES


def test_a_server_that_renders_pages_can_import_it(app: Path) -> None:
    code = 'import { WebSocketBridge } from "channelsq"; console.log(new WebSocketBridge().state);'
    done = run("node", "--input-type=module", "-e", code, cwd=app)
    assert done.stdout == "idle\n"
