"""Ordinary Celery tasks in the same app."""

from __future__ import annotations

from celery import shared_task

from channelsq import Channel, Group


@shared_task
def push(group: str, text: str) -> None:
    """Push to every browser in a group: what a Celery task cannot do elsewhere."""
    Group(group).send({"text": text})


@shared_task
def tell_prerun(reply_channel: str) -> None:
    """Answer with the tasks that ``task_prerun`` was sent for."""
    from tests.project.consumers import prerun

    Channel(reply_channel).send({"prerun": sorted(set(prerun))})
