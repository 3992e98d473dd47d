"""Signals, under the names that Channels 1 gave them.

``consumer_started(sender, environ)`` and ``consumer_finished(sender)`` surround each run of a consumer,
whether it succeeds or not.  ``worker_ready(sender)`` is sent once when a worker takes its first message
queue, ``worker_process_ready(sender)`` in each process that runs consumers.
"""

from django.dispatch import Signal

consumer_started = Signal()
consumer_finished = Signal()
worker_ready = Signal()
worker_process_ready = Signal()
