"""One config class a task, and what they are built from."""
