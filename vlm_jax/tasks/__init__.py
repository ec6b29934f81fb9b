"""One file a task: its targets, its loss, its predictions, its scores."""
