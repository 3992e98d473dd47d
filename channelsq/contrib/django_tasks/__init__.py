"""A backend that runs the tasks of Django's own framework, ``django.tasks``, in the project's Celery workers.

In the settings::

    TASKS = {"default": {"BACKEND": "channelsq.contrib.django_tasks.CeleryBackend"}}

It needs Django 6.0 or later.
"""

from channelsq.contrib.django_tasks.backend import CeleryBackend

__all__ = ["CeleryBackend"]
