"""The template tag of the live admin."""
