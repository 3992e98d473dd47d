"""The project on Channels 4."""
