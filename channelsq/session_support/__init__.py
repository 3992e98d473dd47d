"""Session stores, and the order of the messages of one socket."""
