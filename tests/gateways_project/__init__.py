"""A project with gateways; the tests themselves read its channels."""
