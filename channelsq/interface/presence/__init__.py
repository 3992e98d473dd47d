"""The presence of servers and clients: heartbeats, connection counts, and the groups of sockets."""
