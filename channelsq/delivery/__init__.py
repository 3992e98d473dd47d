"""What is sent when, and what runs again: the effects of a consumer."""
