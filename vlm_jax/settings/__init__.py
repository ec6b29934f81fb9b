"""Settings as frozen pydantic models: dotted names, choices, changes, JSON, one-line errors and `--help`."""
