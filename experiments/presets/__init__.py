"""Settings that are used as they are, by name."""
