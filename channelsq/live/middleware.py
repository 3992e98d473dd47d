"""The middleware of live tasks."""

from channelsq.live.adoption import LiveTasksMiddleware

__all__ = ["LiveTasksMiddleware"]
