"""An app of the test project whose tasks are those of django.tasks, in Celery workers; it needs Django 6.0."""
