"""``manage.py doctor`` and ``python -m channelsq doctor``: what is wrong with a site, and the remedy.

An *examination* looks at one thing and returns findings (:mod:`channelsq.doctor.findings`).  Each is bounded in time,
so that a server that does not answer holds up none of the others.
"""
