"""Where sessions are stored, and the order of the messages of one socket."""
