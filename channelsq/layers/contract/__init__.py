"""What every channel layer is, and what there is room for in a channel."""
