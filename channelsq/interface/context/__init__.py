"""What all connections of one interface server share."""
