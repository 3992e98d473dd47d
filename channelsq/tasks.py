"""The module that ``app.autodiscover_tasks()`` finds: it makes the project's Celery app consume its channels."""

from celery import current_app

from channelsq.worker.setup import install_or_refuse

install_or_refuse(current_app._get_current_object())  # type: ignore[attr-defined]
