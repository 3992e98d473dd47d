"""Django apps that a project adds on top of channelsq."""
