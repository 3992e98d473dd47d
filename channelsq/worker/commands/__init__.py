"""Extensions of Celery's options, commands and events for channels."""
