"""``python -m channelsq startproject``: a new project that runs at once."""
