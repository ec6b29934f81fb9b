"""Images of prompts."""

import copy

from vlm_jax.config.use import Candidates, Generate
from vlm_jax.figures import Card
from vlm_jax.inference.images import bucket
from vlm_jax.inference.results import PromptImages
from vlm_jax.inference.runs import AT_ONCE, RunModel, Shown
from vlm_jax.settings.changes import checked, with_changes
from vlm_jax.tasks.image_generation import ImageGeneration


class ImageGenerator(RunModel):
    """The model of a run of image generation."""

    task: ImageGeneration

    def _generate_images(self, prompts: list[str], num_images: int, seed: int | None) -> list[PromptImages]:
        candidates = checked(Candidates, {"num_images": num_images})
        return self._images(prompts, candidates, seed)

    def _images(self, prompts: list[str], candidates: Candidates, seed: int | None = None) -> list[PromptImages]:
        many = len(prompts) * candidates.num_images * candidates.num_candidates
        size = max(bucket(many, AT_ONCE), 1 if candidates.reranker else candidates.num_candidates)
        task = self.task
        if seed is not None:
            task = copy.copy(task)  # with the compiled programs
            task.config = with_changes(task.config, {"seed": seed})
        images = self._call(lambda params: task.generate_images(params, prompts, None, candidates, batch=size))
        return [PromptImages(prompt, row, self._warnings(prompt)) for prompt, row in zip(prompts, images, strict=True)]

    def show(self, options: Generate) -> Shown:
        """The images of every prompt, on one contact sheet."""
        made = self._images(list(options.prompt), self.task.scoring)
        rows = [(row, image) for row in made for image in row.images]
        lines = [
            {"contact_sheet": str(options.output), "place": place, "prompt": row.prompt, "notes": list(row.warnings)}
            for place, (row, _) in enumerate(rows, 1)
        ]
        cards = [Card(image, "", row.prompt, None, (), None) for row, image in rows]
        return Shown(lines, f"{len(rows)} images in {options.output}", cards)


MODEL = ImageGenerator
