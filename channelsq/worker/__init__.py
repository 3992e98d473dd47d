"""Workers: what runs consumers.

``celery -A app worker`` finds :mod:`channelsq.tasks`, which calls :func:`channelsq.worker.setup.install`;
from then on every routed channel is a queue of that worker and every consumer one of its tasks.
A layer on streams that is not on Celery's broker is read beside it, by :mod:`channelsq.worker.sources`.
On the in-memory layer there is no broker to consume from, so :mod:`channelsq.worker.embedded` runs
the same tasks in threads of the one process there is.
"""
