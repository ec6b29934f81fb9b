"""One file a task: its targets, its loss, its predictions, its scores."""

from vlm_jax.tasks.captioning import Captioning
from vlm_jax.tasks.image_generation import ImageGeneration
from vlm_jax.tasks.image_tokenizer import ImageTokenization
from vlm_jax.tasks.vqa import VisualQuestionAnswering

TASKS = {
    "vqa": VisualQuestionAnswering,
    "captioning": Captioning,
    "image_tokenizer": ImageTokenization,
    "image_generation": ImageGeneration,
}
