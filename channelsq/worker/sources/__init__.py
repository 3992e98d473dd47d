"""Sources, with which a worker reads channel layers beside Celery's broker and pool.

Each layer has a *source* (a connection that polls its queues and settles handled messages) and a *runner* (the threads
that run consumers).  A step of Celery's worker starts both.  They do not use Celery's event loop, so a layer works
while Celery's broker is down, and Celery's tasks run while a layer is down.
"""
