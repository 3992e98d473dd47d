"""Options of ``celery worker`` and ``celery purge``, and the command ``celery channels``.

Celery loads this module by the entry point ``celery.commands`` when its command line starts, before it knows the
project's app.  So the module must not read Django's settings.
"""

from __future__ import annotations

import json
from typing import Any

import click
from celery.bin.base import CeleryCommand, CeleryOption, handle_preload_options
from celery.bin.purge import purge
from celery.bin.worker import worker

import channelsq.transport  # noqa: F401  # `inspect` and `control` may use a redis-streams:// broker, without Django
from channelsq.worker.commands import forgotten
from channelsq.worker.commands.purge import install as install_purge

OPTIONS = (
    CeleryOption(
        ["--channel-threads"],
        type=click.IntRange(1, 1000),
        help_group="Channel Options",
        help="The number of consumers of a channel layer that run at once, in each process.",
    ),
    CeleryOption(
        ["--channel-processes"],
        type=click.IntRange(0, 1000),
        help_group="Channel Options",
        help="The number of separate processes that run consumers; 0 for threads of the worker.",
    ),
)

worker.params.extend(OPTIONS)
install_purge(purge)
forgotten.install()


@click.command(cls=CeleryCommand)
@click.option("-j", "--json", "as_json", is_flag=True, cls=CeleryOption, help="Print JSON.")
@click.option("-t", "--timeout", type=float, default=1.0, cls=CeleryOption, help="Seconds to wait for workers.")
@click.pass_context
@handle_preload_options
def channels(ctx: Any, as_json: bool, timeout: float) -> None:
    """Show which channels the workers read, where their consumers run, and their versions of channelsq."""
    answers = ctx.obj.app.control.inspect(timeout=timeout).stats() or {}
    found = {node: stats["Channel layers"] for node, stats in sorted(answers.items()) if "Channel layers" in stats}
    if as_json:
        ctx.obj.echo(json.dumps(found))
    elif not found:
        ctx.obj.echo("No worker reads channels through a source of its own.")
    for node, answer in () if as_json else found.items():
        version = f", channelsq {answer['channelsq']}, wire version {answer['wire']}" if "channelsq" in answer else ""
        ctx.obj.echo(f"{node}: {answer['runs']}{version}")
        for alias, names in answer["reads"].items():
            ctx.obj.echo(f"    {alias}: {', '.join(names)}")
            if state := answer.get("streaming", {}).get(alias):
                ctx.obj.echo(f"    {alias}: {state['running']} streaming responses, of at most {state['limit']}")
