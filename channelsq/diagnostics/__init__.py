"""Texts for developers: the cause of an error, and sends that have no effect."""
