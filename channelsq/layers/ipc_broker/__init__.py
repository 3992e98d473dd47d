"""The layer between the processes of one machine: how it sends, reads and keeps groups in the site's file."""
