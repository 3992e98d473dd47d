"""Execution of the operations of :mod:`channelsq.redis_core` on redis-py's connections."""
