"""The state of a running site, and actions on it: ``manage.py channels``."""
