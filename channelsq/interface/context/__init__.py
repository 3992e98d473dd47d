"""The state that all connections of one interface server share."""
