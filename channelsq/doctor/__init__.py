"""``manage.py doctor`` and ``python -m channelsq doctor``: the problems of a site, and their remedies.

An *examination* checks one subject and returns findings (:mod:`channelsq.doctor.findings`).  Each has a time limit, so
that a server that does not answer delays none of the others.
"""
