"""HTTP requests and their responses."""
