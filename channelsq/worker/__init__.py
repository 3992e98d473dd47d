"""Workers, which run consumers.

``celery -A app worker`` imports :mod:`channelsq.tasks`, which calls :func:`channelsq.worker.setup.install`.
Then every routed channel is a queue of the worker and every consumer is one of its tasks.
:mod:`channelsq.worker.sources` reads the layers, beside Celery's broker.
The in-memory layer has no broker, so :mod:`channelsq.worker.embedded` runs the same tasks in threads of its process.
"""
