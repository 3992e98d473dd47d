"""Django's system checks of a project with channels."""
