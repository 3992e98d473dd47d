"""A Django project with Celery alone, without channelsq."""

from benchmarks.sites.stock.celery import app as celery_app

__all__ = ["celery_app"]
