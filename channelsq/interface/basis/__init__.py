"""What all parts of the interface server stand on: settings, limits, counters, log fields, frames."""
