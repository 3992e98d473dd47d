"""The project on channelsq."""

from benchmarks.sites.ours.celery import app as celery_app

__all__ = ["celery_app"]
