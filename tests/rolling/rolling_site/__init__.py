"""A site that is deployed while it is used; see tests/integration/site/test_rolling_deploy.py.

It is copied beside the channelsq that it is to run on, so it uses only what each state of that has.
"""

from .celery import app as celery_app

__all__ = ["celery_app"]
