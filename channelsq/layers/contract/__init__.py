"""The contract of every channel layer and its sources, and the capacity of channels."""
