"""The interface server for email: ``python -m channelsq.interface.email``; docs/how-to/extend/interface-servers.md."""
