"""Running one consumer on one message, as a Celery task."""
