"""The foundation of the interface server: settings, limits, counters, log fields, frames."""
