"""Filters of routes: regular expressions on message values, and a cache of their results."""
