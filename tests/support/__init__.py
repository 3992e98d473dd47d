"""What the tests stand on: servers, processes, browsers, and waiting for things."""
