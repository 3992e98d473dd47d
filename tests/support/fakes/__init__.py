"""Stand-ins for parts of channelsq and Celery, for tests of what is beside them.

A ``Fake…`` does a simpler thing than the part that it stands for; a ``Recording…`` does the same, or nothing, and keeps
what it was asked to do.
"""
