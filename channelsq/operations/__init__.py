"""Looking at a running site, and acting on it: ``manage.py channels``."""
