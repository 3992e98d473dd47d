"""Processes of a worker that only run consumers."""
