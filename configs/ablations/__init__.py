"""Studies: each file has a `get_study()`."""
