"""Who is there: this server and others, its clients, and the groups that their sockets are in."""
