"""The process of an interface server: start and shutdown."""
