"""The interface server's own pages: health and metrics."""
