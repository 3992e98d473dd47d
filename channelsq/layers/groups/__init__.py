"""Data of a layer besides its messages: groups, presence, marks of runs."""
