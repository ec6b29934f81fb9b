"""One file a task: its targets, its loss, its predictions, its scores."""

from vlm_jax.tasks.vqa import VisualQuestionAnswering

TASKS = {"vqa": VisualQuestionAnswering}
