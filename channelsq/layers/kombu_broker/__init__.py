"""A layer's broker through Kombu: connections, queues, sending and receiving."""
