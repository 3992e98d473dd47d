"""Several processes that serve together on the same ports: their supervisor, and the exchange of their metrics."""
