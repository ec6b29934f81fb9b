"""The config class of every task; the task itself is the module of that name in `vlm_jax/tasks`."""

from vlm_jax.config.captioning import Captioning
from vlm_jax.config.image_generation import ImageGeneration
from vlm_jax.config.image_tokenizer import ImageTokenizer
from vlm_jax.config.run import Config
from vlm_jax.config.vqa import VQA

TASKS: dict[str, type[Config]] = {
    "vqa": VQA,
    "captioning": Captioning,
    "image_generation": ImageGeneration,
    "image_tokenizer": ImageTokenizer,
}
