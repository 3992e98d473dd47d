"""A socket's session stays under the socket's key, whatever its engine would choose."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends.base import SessionBase
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.db import SessionStore as DatabaseStore

from channelsq.session_support.django_session_internals import set_key


@pytest.mark.parametrize("store", [CacheStore, DatabaseStore])
def test_an_engine_takes_the_key_that_it_is_given(store: type[SessionBase]) -> None:
    session = store()
    set_key(session, "k" * 32)
    assert session.session_key == "k" * 32
