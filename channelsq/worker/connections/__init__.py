"""A worker's connections to brokers."""
