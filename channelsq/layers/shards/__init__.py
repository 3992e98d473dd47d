"""A layer of several Redis servers, composed of one layer for each server."""
