"""A live page of a running site for its staff: sockets, messages, channels, processes, groups and dead letters."""
