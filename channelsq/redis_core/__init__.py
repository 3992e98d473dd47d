"""What channelsq asks of Redis, and what the replies mean; nothing here opens a socket or waits.

An operation yields commands, is sent their replies, and returns its result, see :mod:`channelsq.redis_core.operations`.
Two shells carry operations out and do nothing else: :mod:`channelsq.redis_io.blocking` for threads, and
:mod:`channelsq.interface.link` for the interface server's event loop.
"""
