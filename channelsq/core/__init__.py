"""Facts that need nothing else of channelsq: names, shapes of messages, log lines, the version of the wire."""
