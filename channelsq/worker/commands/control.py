"""Celery's remote control for channels: ``inspect`` and ``control`` include a worker's sources."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from celery.worker.control import Panel
from kombu.utils.encoding import safe_str

from channelsq.worker.commands.consumer_limits import NEEDS_PREFORK
from channelsq.worker.running.celery_state_internals import revoked_ids
from channelsq.worker.running.consumer_task import ConsumerTask, is_message, shown
from channelsq.worker.running.consumer_tasks import tasks_of

Command = Callable[..., Any]


def sources_of(state: Any) -> Any:
    """Return a worker's step :class:`channelsq.worker.sources_step.Sources`; None if it has none."""
    return getattr(state.consumer.controller, "channelsq_sources", None)


def install() -> None:
    """Extend Celery's commands to channels.  Repeated calls are harmless."""
    for name, around in _AROUND.items():
        command = Panel.data[name]
        if not hasattr(command, "channelsq"):
            Panel.data[name] = _wrapped(command, around)


def _wrapped(command: Command, around: Callable[..., Any]) -> Command:
    @functools.wraps(command)
    def answer(state: Any, *args: Any, **kwargs: Any) -> Any:
        sources = sources_of(state)
        if sources is None:
            return command(state, *args, **kwargs)
        return around(sources, command, state, *args, **kwargs)

    answer.channelsq = True  # type: ignore[attr-defined]
    return answer


def _without_content(state: Any, entry: dict[str, Any]) -> dict[str, Any]:
    """Return Celery's description of a request, without the content of a message for a consumer."""
    if "request" in entry:  # an entry of the scheduled requests
        return {**entry, "request": _without_content(state, entry["request"])}
    args = entry.get("args")
    if not isinstance(state.app.tasks.get(entry.get("name")), ConsumerTask) or not is_message(args):
        return entry
    texts = shown(args, entry.get("kwargs") or {})
    return {**entry, "args": texts["argsrepr"], "kwargs": texts["kwargsrepr"]}


def _listed(what: str) -> Callable[..., Any]:
    def around(sources: Any, command: Command, state: Any, *args: Any, **kwargs: Any) -> Any:
        ours = (one for part in sources.ask(what) for one in part)
        return [*(_without_content(state, entry) for entry in command(state, *args, **kwargs) or ()), *ours]

    return around


def _active_queues(sources: Any, command: Command, state: Any) -> Any:
    found = list(command(state) or ())
    for alias, channels in sources.channels.items():
        layer = tasks_of(state.app)[alias].layer
        found += [dict(layer.queue(channel).as_dict(recurse=True)) for channel in channels]
    return found


def _stats(sources: Any, command: Command, state: Any, **kwargs: Any) -> Any:
    stats = command(state, **kwargs)
    if sources.supervisor is not None:  # Celery itself counts only consumers in threads of the worker
        total: dict[str, int] = dict(stats.get("total") or {})
        for part in sources.ask("counts"):
            for name, number in part.items():
                total[name] = total.get(name, 0) + number
        stats["total"] = total
    return stats


def _query_task(sources: Any, command: Command, state: Any, ids: Any, **kwargs: Any) -> Any:
    celerys = (command(state, ids, **kwargs) or {}).items()
    found = {identity: (place, _without_content(state, entry)) for identity, (place, entry) in celerys}
    wanted = {ids} if isinstance(ids, str) else set(ids or ())
    for what in ("active", "reserved", "scheduled"):
        for part in sources.ask(what):
            for one in part:
                info = one.get("request", one)
                if info["id"] in wanted:
                    found[info["id"]] = what, info
    return found


def _revoke(sources: Any, command: Command, state: Any, task_id: Any, terminate: bool = False, **kwargs: Any) -> Any:
    ids = {task_id} if isinstance(task_id, str) else set(task_id or ())
    ours = ids & {info["id"] for part in sources.ask("active") for info in part}
    answer = command(state, task_id, terminate=terminate, **kwargs)
    if sources.supervisor is not None:
        sources.supervisor.tell("revoked", revoke=revoked_ids())
    if terminate and ours:
        return {
            "error": f"{', '.join(sorted(ours))}: consumers run in threads, which cannot be terminated; the option "
            "time_limit= of @consumer has a consumer run in Celery's pool of processes"
        }
    return answer


def _rate_limit(sources: Any, command: Command, state: Any, task_name: str, rate_limit: Any, **kwargs: Any) -> Any:
    answer = command(state, task_name, rate_limit, **kwargs)
    task = state.app.tasks.get(task_name)
    if isinstance(task, ConsumerTask) and sources.supervisor is not None:
        sources.supervisor.tell(f"rate {task_name}", rate_limit=task.rate_limit, task=task_name)
    return answer


def _time_limit(
    sources: Any, command: Command, state: Any, task_name: Any = None, hard: Any = None, soft: Any = None, **kwargs: Any
) -> Any:
    task = state.app.tasks.get(task_name)
    if not isinstance(task, ConsumerTask):
        return command(state, task_name, hard, soft, **kwargs)
    if (hard or soft) and not sources.pool_keeps_limits:
        return {"error": f"{task_name} is a consumer; {NEEDS_PREFORK}"}
    answer = command(state, task_name, hard, soft, **kwargs)
    if sources.supervisor is not None:
        sources.supervisor.tell(f"time limit {task_name}", time_limit=[hard, soft], task=task_name)
    return answer


def _events(sources: Any, command: Command, state: Any, **kwargs: Any) -> Any:
    answer = command(state, **kwargs)
    sources.tell_of_events()
    return answer


def _channel_of(state: Any, queue: str) -> tuple[str, str] | None:
    """Return the layer's alias and the channel of a queue; None if the queue is Celery's."""
    for alias, tasks in tasks_of(state.app).items():
        for channel in tasks.channels:
            if tasks.layer.queue(channel).name == queue:
                return alias, channel
    return None


def _add_consumer(sources: Any, command: Command, state: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
    ours = _channel_of(state, queue)
    if ours is None:
        return command(state, queue, *args, **kwargs)
    sources.read(*ours)
    return {"ok": f"add consumer {safe_str(queue)}"}


def _cancel_consumer(sources: Any, command: Command, state: Any, queue: str, *args: Any, **kwargs: Any) -> Any:
    ours = _channel_of(state, queue)
    if ours is None:
        return command(state, queue, *args, **kwargs)
    sources.cease(*ours)
    return {"ok": f"no longer consuming from {safe_str(queue)}"}


_AROUND: dict[str, Callable[..., Any]] = {
    **{f"{old}{what}": _listed(what) for what in ("active", "reserved") for old in ("", "dump_")},
    "scheduled": _listed("scheduled"),
    "dump_schedule": _listed("scheduled"),
    "active_queues": _active_queues,
    "stats": _stats,
    "query_task": _query_task,
    "revoke": _revoke,
    "rate_limit": _rate_limit,
    "time_limit": _time_limit,
    "enable_events": _events,
    "disable_events": _events,
    "add_consumer": _add_consumer,
    "cancel_consumer": _cancel_consumer,
}
