"""The layer for the processes of one machine: sending, reading and groups in the site's file."""
