"""Celery's options, commands and events, for channels as well."""
