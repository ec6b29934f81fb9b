"""Captions of images."""

from vlm_jax.config.captioning import Beam, Decoding, DecodingMethod, Greedy
from vlm_jax.config.use import Caption as Options
from vlm_jax.errors import InputError
from vlm_jax.figures import Card
from vlm_jax.inference.images import ImageLike, named_images, thumbnails
from vlm_jax.inference.results import Caption
from vlm_jax.inference.runs import FusedModel, Shown
from vlm_jax.settings.changes import checked
from vlm_jax.tasks.captioning import Captioning


class CaptionWriter(FusedModel):
    """The model of a run of captioning."""

    task: Captioning

    def _generate_captions(self, images: list[ImageLike], num_beams: int) -> list[Caption]:
        return self._captions(images, beam_search(self.config.decoding, num_beams))

    def _captions(
        self, images: list[ImageLike], decoding: DecodingMethod, choices: tuple[str, ...] = ()
    ) -> list[Caption]:
        """The captions of every image; where there are `choices`, each is one of them."""
        batches = (batch for batch, _ in self._batches(images))
        captions = self._call(
            lambda params: self.task.generate(params, batches, decoding=decoding, choices=choices),
        )
        return [Caption(hypotheses) for hypotheses in captions[: len(images)]]  # the last batch is filled up

    def show(self, options: Options) -> Shown:
        """The captions of every image."""
        if options.seed is not None and self.config.decoding.kind != "sample":
            raise InputError("--seed is for sampled captions; give --decoding.kind sample, or leave it out")
        names, images = named_images(options.image, max_pixels=self.config.data.max_pixels)
        captions = self._captions(images, self.config.decoding, options.choices or ())
        lines, text = [], []
        for name, caption in zip(names, captions, strict=True):
            hypotheses = [hypothesis.as_dict() for hypothesis in caption.hypotheses]
            lines.append({"image": name, "captions": hypotheses, "notes": []})
            text.append(name)
            text += [f"  {hypothesis.log_probability:8.2f}  {hypothesis.text}" for hypothesis in caption.hypotheses]
        small = thumbnails(images, self.processor, options.output)
        cards = [Card(image, "", row.text, None, (), None) for image, row in zip(small, captions, strict=False)]
        return Shown(lines, "\n".join(text), cards)


def beam_search(decoding: Decoding, num_beams: int) -> DecodingMethod:
    """A beam search of so many beams, with what a run's decoding says of lengths and repetitions; one is greedy."""
    kind = Greedy if num_beams == 1 else Beam
    values = {name: value for name, value in decoding if name in kind.model_fields and name != "kind"}
    if kind is Beam:
        values |= {"num_beams": num_beams, "num_return_sequences": 1}
    return checked(kind, values)


MODEL = CaptionWriter
