"""The Autobahn WebSocket test suite against this project's interface server."""
