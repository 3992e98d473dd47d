"""A layer's broker as Kombu reaches it: connections, queues, sending and receiving."""
