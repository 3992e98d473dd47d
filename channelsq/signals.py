"""Signals, with the names of Channels 1.

``consumer_started(sender, environ, message)`` and ``consumer_finished(sender, message)`` surround each run of a
consumer, whether it succeeds or not.  ``worker_ready(sender)`` is sent once when a worker takes its first message
queue, ``worker_process_ready(sender)`` in each process that runs consumers.
"""

from django.dispatch import Signal

__all__ = ["consumer_finished", "consumer_started", "worker_process_ready", "worker_ready"]

#: A consumer is about to run; sent with ``sender`` (the consumer), ``environ`` (an empty dict) and ``message``.
consumer_started = Signal()
#: A consumer has ended, whether it succeeded or not; sent with ``sender`` and ``message``.
consumer_finished = Signal()
#: The worker takes its first message queue; sent once, with ``sender``.
worker_ready = Signal()
#: A process is about to run its first consumer; sent once in each process of a pool, with ``sender``.
worker_process_ready = Signal()
