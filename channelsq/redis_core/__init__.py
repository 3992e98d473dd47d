"""Operations on Redis and the meaning of their replies; nothing here opens a socket or waits.

An operation yields commands, receives their replies, and returns its result, see
:mod:`channelsq.redis_core.operations`.  Two shells only carry operations out: :mod:`channelsq.redis_io.blocking` for
threads, and :mod:`channelsq.interface.link` for the interface server's event loop.
"""
