"""Django behind the ``http.request`` channel: ``request`` in, ``handler`` between, ``reply`` out.

``request`` makes a Django request of a message, ``handler`` runs Django's middleware and views and makes
messages of the response, ``asynciter`` walks asynchronous iterators for it, ``reply`` takes the messages to
the client at the client's own pace.  :mod:`channelsq.handler` is the way in.
"""
