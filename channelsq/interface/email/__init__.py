"""The interface server for email: ``python -m channelsq.interface.email``; docs/interface-servers.md."""
