"""Execution of one consumer on one message, as a Celery task."""
