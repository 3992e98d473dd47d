"""A project whose only consumer sends back what came."""

from tests.autobahn.site.celery import app as celery_app

__all__ = ["celery_app"]
