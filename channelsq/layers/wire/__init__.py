"""What travels: packed, signed, enveloped."""
