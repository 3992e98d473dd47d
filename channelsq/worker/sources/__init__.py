"""How a worker reads channel layers: sources of their own, beside Celery's broker and pool.

Each layer has a *source* (a connection that polls its queues and settles what was handled) and a *runner* (the
threads that run consumers).  Both are started by a step of Celery's worker, and none of it passes through Celery's
event loop, so a layer works while Celery's broker is away, and Celery's tasks while a layer is.
"""
