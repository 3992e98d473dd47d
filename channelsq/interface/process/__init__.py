"""The processes of an interface server: start, supervision and shutdown."""
