"""WebSocket clients, from the handshake to the close."""
