"""The effects of a consumer: when its sends leave, and whether its message runs again."""
