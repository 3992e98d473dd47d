"""The middleware of live tasks."""

from channelsq.live.adoption import live_tasks

__all__ = ["live_tasks"]
