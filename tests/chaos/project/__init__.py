"""The project under chaos: what its consumers are handed goes to files that no fault touches."""

from tests.chaos.project.celery import app as celery_app

__all__ = ["celery_app"]
