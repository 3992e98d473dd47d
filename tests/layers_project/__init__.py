"""A project with two channel layers: "default" and "other"."""

from tests.layers_project.celery import app as celery_app

__all__ = ["celery_app"]
