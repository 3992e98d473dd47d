"""Servers, processes, browsers and waits of the tests."""
