"""Django behind the ``http.request`` channel: ``request`` in, ``handler`` between, ``reply`` out.

``request`` makes a Django request of a message, ``handler`` runs Django's middleware and views and makes messages of
the response, ``asynciter`` iterates asynchronous responses for it, ``reply`` sends the messages at the client's pace.
:mod:`channelsq.handler` is the public module.
"""
