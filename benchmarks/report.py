"""The results as Markdown and JSON, with the machine, the method and the caveats beside the numbers."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import peers
from benchmarks.programs import ROOT, redis_binary
from benchmarks.results import REFERENCE, Results, Series
from benchmarks.targets import TARGETS

HERE = Path(__file__).parent

TITLES = {
    "echo": "Echo over WebSocket",
    "brokers": "Celery's broker",
    "layers": "Channel layers",
    "waiting": "Consumers that wait",
    "database": "Consumers that ask a database",
    "processes": "Consumers in processes of their own",
    "observed": "Time limits and events",
    "tasks": "Ordinary tasks beside consumers",
    "idle": "Idle workers",
    "live": "Live tasks",
    "connect": "Connecting",
    "fanout": "Fan-out to a group",
    "http": "A trivial Django view",
    "publish": "Publishing",
    "groups": "Group sends beside other groups",
    "memory": "Memory an idle socket",
    "crowd": "A crowd of idle sockets",
    "soak": "Soak",
}

_OURS = [
    "channelsq",
    "celery",
    "kombu",
    "django",
    "redis",
    "hiredis",
    "uvicorn",
    "uvloop",
    "httptools",
    "websockets",
    "psycopg",
]
_THEIRS = ["channels", "channels_redis", *_OURS[3:]]


def machine() -> dict[str, Any]:
    """Return a description of this machine."""
    processor = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--exclude=*"]
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
        "cores": len(os.sched_getaffinity(0)),
        "processor": processor[1] if processor else platform.machine(),
        "memory_gb": round(int(memory[1]) / 1024**2, 1) if memory else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "redis": subprocess.run(
            [redis_binary(), "--version"], capture_output=True, text=True, check=True
        ).stdout.strip(),
        "load_before": os.getloadavg()[0],
        "channelsq": peers.versions(sys.executable, _OURS),
        "channels": peers.versions(peers.PYTHON, _THEIRS),
    }


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _metric_tables(series: list[Series]) -> Iterable[str]:
    """Yield a table for each work and metric."""
    for work in dict.fromkeys(each.work for each in series):
        yield f"### {work[0].upper()}{work[1:]}"
        for metric in dict.fromkeys(each.metric for each in series if each.work == work):
            rows = [each for each in series if (each.work, each.metric) == (work, metric)]
            reference = next((each.median for each in rows if each.contestant.split(",")[0] == REFERENCE), None)
            yield table(
                [metric, "median", "min", "max", "rounds", f"{REFERENCE} / this"],
                (
                    [
                        each.contestant,
                        number(each.median),
                        number(min(each.values)),
                        number(max(each.values)),
                        str(len(each.values)),
                        f"{reference / each.median:.2f}" if reference and each.median else "",
                    ]
                    for each in rows
                ),
            )


def targets(results: Results) -> str:
    """Return the table against the targets."""
    return table(["work", "asked", "reached", ""], (each.row(results) for each in TARGETS))


def markdown(results: Results, options: dict[str, Any]) -> str:
    """Return the whole page."""
    about = results.machine
    method = (HERE / "METHOD.md").read_text().strip()
    parts = [
        f"# Benchmarks of {about['date']}",
        table(
            ["", ""],
            [
                ["commit", about["commit"]],
                [
                    "machine",
                    f"{about['cores']} cores, {about['processor']}, {about['memory_gb']} GB, {about['system']}",
                ],
                ["Python", about["python"]],
                ["broker", about["redis"]],
                ["channelsq", ", ".join(f"{name} {version}" for name, version in about["channelsq"].items())],
                ["peers", ", ".join(f"{name} {version}" for name, version in about["channels"].items())],
                ["load average before", f"{about['load_before']:.2f}"],
                ["options", ", ".join(f"{name} {_shown(value)}" for name, value in options.items())],
            ],
        ),
        "## Against the targets",
        targets(results),
    ]
    if results.failures:
        parts += ["## Failed", "\n".join(f"- {' '.join(each.split())}" for each in results.failures)]
    if results.missing:
        parts += ["## Left out", "\n".join(f"- {each}" for each in results.missing.values())]
    for part, title in TITLES.items():
        if series := [each for each in results.series if each.part == part]:
            parts += [f"## {title}", *_metric_tables(series)]
    notes = "\n".join(f"- {note}" for note in results.notes)
    return "\n\n".join([*parts, method, notes]).rstrip() + "\n"


def write(results: Results, options: dict[str, Any], folder: Path) -> Path:
    """Write ``<date>.md`` and ``<date>.json``, numbered if the day has one already; return the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    day = results.machine["date"][:10]
    page = next(
        path for n in range(1, 1000) if not (path := folder / (f"{day}.md" if n == 1 else f"{day}-{n}.md")).exists()
    )
    page.write_text(markdown(results, options))
    page.with_suffix(".json").write_text(json.dumps({"options": options, **asdict(results)}, indent=1) + "\n")
    return page


def publish(results: Results, page: Path) -> None:
    """Write the table against the targets into README.md, between its two marks."""
    readme = HERE / "README.md"
    about = results.machine
    link = page.resolve().relative_to(HERE.resolve())
    text = f"Run of {about['date']}, {about['cores']} cores, commit {about['commit']}: [everything]({link}).\n\n"
    begin, _, rest = readme.read_text().partition("<!-- latest -->\n")
    _, mark, end = rest.partition("<!-- /latest -->")
    if not mark:
        raise SystemExit(f"benchmarks: {readme} has lost its marks <!-- latest --> and <!-- /latest -->")
    readme.write_text(f"{begin}<!-- latest -->\n{text}{targets(results)}\n{mark}{end}")
