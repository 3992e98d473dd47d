"""The module that ``app.autodiscover_tasks()`` finds: it makes the project's Celery app consume its channels."""

from channelsq.core.celery_app_internals import current_app
from channelsq.worker.setup import install_or_refuse

install_or_refuse(current_app())
