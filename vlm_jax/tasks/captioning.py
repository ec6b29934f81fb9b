"""Captioning: after each word the next one, from the image and the words before."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from vlm_jax.config.captioning import Captioning as Config
from vlm_jax.config.captioning import DecodingMethod, Sample
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.data.loader import EvaluationBatches
from vlm_jax.decoding import Decoder, Special, Trie
from vlm_jax.errors import InputError
from vlm_jax.metrics.captions import cider_d_per_item, official_tokens, score_captions
from vlm_jax.metrics.ptb_tokens import ptb_tokenize
from vlm_jax.models.pixels import normalise_pixels
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.placement import split_over_devices
from vlm_jax.scenes.rules import check_caption
from vlm_jax.scenes.scene import from_json
from vlm_jax.tasks.base import Item, Sums
from vlm_jax.tasks.baselines import distinct_images, shuffled_difference
from vlm_jax.tasks.caption import Caption, Hypothesis, rule_scores
from vlm_jax.tasks.caption_baselines import NEIGHBOURS, constant_captions, nearest_captions
from vlm_jax.tasks.examples import place_keys, shuffled_images, spread, without_texts
from vlm_jax.tasks.nearest_image import MOST, nearest_few
from vlm_jax.tasks.reach import caption_reach
from vlm_jax.tasks.text_task import TextTask, init_params
from vlm_jax.types import Batch, Example, Json, Parameters, Text

SAME = 0.99  # share of images with the same caption from which on the model ignores the image


def batch_sums(
    logits: Float[Array, "I K t V"], ids: Int[Array, "I K T"], mask: Bool[Array, "I K T"], *, label_smoothing: float
) -> Sums:
    """Cross-entropy of each word after the first, given those before; t is T - 1 or T.

    Label smoothing e (Szegedy et al. 2016, section 7) spreads e over the V words: (1 - e) nll + e mean(-log p).
    """
    target, real = ids[..., 1:], mask[..., 1:].astype(jnp.float32)
    log_p = jax.nn.log_softmax(logits[:, :, : target.shape[-1]])
    loss = -jnp.take_along_axis(log_p, target[..., None], axis=-1)[..., 0]
    if label_smoothing:
        loss = (1 - label_smoothing) * loss - label_smoothing * jnp.mean(log_p, axis=-1)
    right = jnp.argmax(log_p, axis=-1) == target
    texts = jnp.sum(jnp.any(mask, axis=-1).astype(jnp.float32))
    return Sums(jnp.sum(loss * real), jnp.sum(real), jnp.sum(right * real), texts)


class Captioning(TextTask):
    """The task of one config: its encoder, its model, its loss, its decoding and its scores."""

    scores = (
        *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "cider_d", "exact_match"),
        *("distinct_1", "distinct_2", "vocabulary", "mean_length", "identical_share"),
        *("rule_accuracy", "objects_named", "attributes", "hallucinated", "relations", "relations_true"),
    )
    shares = (
        *("bleu_1", "bleu_2", "bleu_3", "bleu_4", "rouge_l", "exact_match"),
        *("distinct_1", "distinct_2", "identical_share", "rule_accuracy", "objects_named", "relations_true"),
    )
    unit = "captions that are right (by rule, or word for word)"
    text_name = "caption"
    shuffled = "shuffled_images"

    @classmethod
    def metric_of(cls, config: Config) -> str:
        """The share of captions that are true of their scene, or CIDEr-D where the scenes are unknown."""
        return "rule_accuracy" if config.data.scenes else "cider_d"

    @classmethod
    def read_item(cls, line: dict[str, Json]) -> Item:
        """Right by rule where the scene is known; its score is else 1 if it is a reference in the official spelling."""
        hypothesis, references = line["captions"][0]["caption"], tuple(line["references"])
        right = line["check"]["true"] if "check" in line else None
        words = [ptb_tokenize(text) for text in (hypothesis, *references)]
        score = float(words[0] in words[1:] if right is None else right)
        return Item(line["image_id"], score, references=references, hypothesis=hypothesis, right=right)

    def __init__(self, config: Config, encode: ExampleEncoder) -> None:
        self.config, self.encode = config, encode
        self.model = VisualLanguageModel(config.architecture, 1)
        self.metric = self.metric_of(config)
        self._decoders: dict[tuple[DecodingMethod, tuple[str, ...]], Decoder] = {}
        self._vector = split_over_devices(lambda variables, image: self.model.bind(variables).image_vector(image))
        self._normalise = split_over_devices(lambda params, image: normalise_pixels(image, encode.image))
        self._likelihood = split_over_devices(self._log_likelihood)
        self.decoder(config.decoding)  # refuses what cannot be decoded before anything is trained

    def init_params(self, key: Key[Array, ""]) -> Parameters:
        """Fresh float32 parameters."""
        return init_params(self.model, self.encode, key)

    def loss_sums(self, params: Parameters, batch: Batch, keys: Key[Array, " I"] | None) -> Sums:
        """What a train step differentiates; `keys`, one an image, switch dropout on."""
        # After the last word nothing comes: it is no input.
        ids, mask = batch.input_ids[..., :-1], batch.text_mask[..., :-1]
        image = normalise_pixels(batch.image, self.encode.image)
        logits = self.model.bind({"params": params}).task_logits(image, ids, mask, keys=keys)
        real = batch.text_mask & (batch.weight > 0)[..., None]
        return batch_sums(logits, batch.input_ids, real, label_smoothing=self.config.training.label_smoothing)

    def _log_likelihood(self, params, image, ids, mask) -> Float[Array, " I"]:
        image = normalise_pixels(image, self.encode.image)
        logits = self.model.bind({"params": params}).task_logits(image, ids[..., :-1], mask[..., :-1])[:, 0]
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), ids[:, 0, 1:, None], axis=-1)[..., 0]
        return jnp.sum(log_p * mask[:, 0, 1:], axis=-1)

    def log_likelihoods(self, params: Parameters, examples: Sequence[Example], texts: Sequence[str]) -> list[float]:
        """Of each text the log-probability in nats, given the image of its example: all its words, as many as are
        read, and that nothing follows."""
        captioned = [
            example._replace(texts=(Text(example.image_id, text),))
            for example, text in zip(examples, texts, strict=True)
        ]
        encode = dataclasses.replace(self.encode, texts_per_image=1)
        size, threads = self.config.training.evaluation_batch_images, self.config.data.threads
        log_likelihoods = []
        for loaded in EvaluationBatches(captioned, encode, batch_images=size, threads=threads):
            batch = loaded.batch
            log_likelihoods.append(self._likelihood(params, batch.image, batch.input_ids, batch.text_mask))
        return np.concatenate(jax.device_get(log_likelihoods))[: len(texts)].tolist()

    def decoder(self, settings: DecodingMethod, choices: tuple[str, ...] = ()) -> Decoder:
        """The compiled decoder of some settings; it generates one of `choices` where there are any."""
        if (settings, choices) not in self._decoders:
            tokenizer = self.encode.tokenizer
            never = {tokenizer.pad_id, tokenizer.cls_id, tokenizer.mask_id, tokenizer.unknown_id} - {None}
            never |= set(tokenizer.unused(self.config.model.text.vocab_size))
            special = Special(tokenizer.cls_id, tokenizer.sep_id, tokenizer.pad_id, tuple(sorted(never)))
            prefix = tokenizer.tokens([settings.prefix])[0] if settings.prefix else ()
            if tokenizer.unknown_id in prefix:
                raise InputError(f"decoding.prefix {settings.prefix!r} holds a word that the model cannot say")
            max_tokens = self.encode.max_length - 1
            if len(prefix) >= max_tokens:
                raise InputError(
                    f"decoding.prefix has {len(prefix)} tokens, and a text has {max_tokens - 1} of them; shorten it"
                )
            trie = Trie.build(self._tokens_of(choices, max_tokens), end=tokenizer.sep_id) if choices else None
            decoder = Decoder(self.model, settings, special, max_tokens=max_tokens, prefix=prefix, trie=trie)
            self._decoders[settings, choices] = decoder
        return self._decoders[settings, choices]

    def _tokens_of(self, choices: tuple[str, ...], max_tokens: int) -> list[list[int]]:
        tokenizer = self.encode.tokenizer
        tokens = tokenizer.tokens(choices)
        for text, ids in zip(choices, tokens, strict=True):
            if not ids or len(ids) >= max_tokens or tokenizer.unknown_id in ids:
                raise InputError(
                    f"the model cannot say {text!r}: it has 1 to {max_tokens - 1} tokens for a text, all of its "
                    f"vocabulary"
                )
        return tokens

    def predict(
        self,
        params: Parameters,
        examples: Sequence[Example],
        *,
        see_image: bool = True,
        batch_images: int | None = None,
        decoding: DecodingMethod | None = None,
        choices: tuple[str, ...] = (),
    ) -> list[Caption]:
        """The captions of every image of `examples`, in order; without `see_image`, of none in particular.

        With `choices` it is one of those texts.
        """
        images = self._images(params, examples, batch_images or self.config.training.evaluation_batch_images)
        options = {"see_image": see_image, "decoding": decoding, "choices": choices}
        captions = self.generate(params, images, **options)[: len(examples)]  # the last batch is filled up
        return [self._caption(example, row) for example, row in zip(examples, captions, strict=True)]

    def generate(
        self,
        params: Parameters,
        images: Iterable[Float[Array | np.ndarray, "I h w 3"]],
        *,
        see_image: bool = True,
        decoding: DecodingMethod | None = None,
        choices: tuple[str, ...] = (),
    ) -> list[tuple[Hypothesis, ...]]:
        """The captions of each image of batches of one size, best first; see `predict`."""
        decode, waiting, first = self.decoder(decoding or self.config.decoding, choices), [], 0
        is_sampled = isinstance(decode.settings, Sample)
        for image in images:
            keys = place_keys(self.config.seed, first, len(image)) if is_sampled else None
            visible = np.full((len(image), 1), see_image)
            waiting.append(decode({"params": params}, image, image_mask=visible, keys=keys))
            first += len(image)
        rows = [row for decoded in jax.device_get(waiting) for row in zip(*decoded, strict=True)]
        spelled = dict(zip(map(tuple, self.encode.tokenizer.tokens(choices)), choices, strict=True))
        return [self._hypotheses(row, spelled) for row in rows]

    def _images(
        self, params: Parameters, examples: Sequence[Example], size: int
    ) -> Iterator[Float[Array, "I *grid C"]]:
        """The images on the devices, `size` at a time; the last batch is filled up."""
        encode = dataclasses.replace(self.encode, texts_per_image=1)
        images, threads = without_texts(examples), self.config.data.threads
        for loaded in EvaluationBatches(images, encode, batch_images=size, threads=threads):
            yield self._normalise(params, loaded.batch.image)

    def _hypotheses(self, row: Sequence[np.ndarray], spelled: dict[tuple[int, ...], str]) -> tuple[Hypothesis, ...]:
        """`spelled` are choices by their tokens: what is chosen returns as it was given."""
        hypotheses = []
        for ids, length, tokens, log_probability, score in zip(*row, strict=True):
            if length == 0:  # the trie has fewer texts
                continue
            words = tuple(ids[: length - 1].tolist())
            text = spelled[words] if words in spelled else self.encode.tokenizer.decode(ids[:length])
            hypotheses.append(
                Hypothesis(text, float(log_probability), float(score), tuple(map(float, tokens[:length])))
            )
        return tuple(hypotheses)

    def _caption(self, example: Example, hypotheses: tuple[Hypothesis, ...]) -> Caption:
        """The captions of an example, the best one compared with its scene."""
        scene = None if example.scene is None else from_json(example.scene)
        check = None if scene is None else check_caption(hypotheses[0].text, scene)
        references = tuple(text.text for text in example.texts)
        return Caption(example.image_id, hypotheses, references, check)

    def score(self, captions: Sequence[Caption]) -> dict[str, float]:
        """The official scores and, where the scene is known, how much of a caption is true of it."""
        if not captions:
            return {}
        metrics = score_captions([c.text for c in captions], [c.references for c in captions])
        return metrics | rule_scores([c.check for c in captions if c.check])

    def reach(self, train: Sequence[Example], validation: Sequence[Example]) -> list[str]:
        """How many captions images have, and the score of the references as far as the model can write them."""
        return caption_reach(train, validation, self.encode, metric=self.metric)

    def warnings(self, captions: Sequence[Caption], metrics: dict[str, float]) -> list[str]:
        """What a person should know of the scores."""
        if len(captions) < 2 or metrics["identical_share"] < SAME:
            return []
        return ["one caption serves every image: the model ignores the image (yet)"]

    def title(self, metrics: dict[str, float]) -> str:
        """The scores in a few words."""
        if self.metric == "rule_accuracy":
            return f"{metrics['rule_accuracy']:.1%} of the captions wholly true"
        return f"CIDEr-D {metrics['cider_d']:.2f}"

    def files(self, captions: Sequence[Caption]) -> dict[str, Json]:
        """Further files of a scored split: captions in the format of COCO's results."""
        rows = [{"image_id": int(c.image_id) if c.image_id.isdecimal() else c.image_id, "caption": c.text}
                for c in captions]  # fmt: skip
        return {"captions.json": rows}

    def baselines(
        self,
        params: Parameters,
        examples: Sequence[Example],
        train: Sequence[Example],
        predictions: Sequence[Caption],
    ) -> dict[str, float]:
        """The scores without the image, and of captions of other images.

        `shuffled_images`: captions of other images, `no_image`: of none. `constant` and, of rendered scenes,
        `constant_true`: the training caption that suits all best (`constant_captions`). `nearest_image`: the first
        caption of the training image whose grid features, averaged over positions, have the largest cosine with the
        image's own; `nearest_consensus`: of the captions of the five nearest the one most like the others
        (`consensus_captions`). These two take one pass of the image side over at most 20,000 training images, less
        than an epoch's cost.
        """
        blind = self.predict(params, examples, see_image=False)
        rows = {"no_image": blind}
        for name, text in constant_captions(train, self.config.seed).items():
            rows[name] = [self._with_text(text, *row) for row in zip(blind, examples, strict=True)]
        rows |= self._of_nearest(params, blind, examples, train)
        difference: dict[str, float] = {}
        if distinct_images(examples) > 1:
            rows[self.shuffled] = self.predict(params, shuffled_images(examples, self.config.seed))
            scores = [self._item_scores(captions) for captions in (predictions, rows[self.shuffled])]
            difference = shuffled_difference(self.shuffled, self.metric, predictions, *scores)
        shown_metrics = {"cider_d", "bleu_4", "exact_match", "rule_accuracy", "objects_named"}
        return difference | {
            f"baseline/{name}/{metric}": value
            for name, captions in rows.items()
            for metric, value in self.score(captions).items()
            if metric in shown_metrics
        }

    def _item_scores(self, captions: Sequence[Caption]) -> list[float]:
        """Of each caption what `metric` is the mean of."""
        if self.metric == "rule_accuracy":
            return [float(bool(caption.right)) for caption in captions]
        tokens = official_tokens([caption.text for caption in captions], [caption.references for caption in captions])
        return cider_d_per_item(*tokens).tolist()

    def _of_nearest(
        self, params: Parameters, captions: Sequence[Caption], examples: Sequence[Example], train: Sequence[Example]
    ) -> dict[str, list[Caption]]:
        known = spread(train, MOST)
        places = nearest_few(self._vectors(params, examples), self._vectors(params, known), NEIGHBOURS)
        return {
            name: [self._with_text(*row) for row in zip(texts, captions, examples, strict=True)]
            for name, texts in nearest_captions(known, places).items()
        }

    def _vectors(self, params: Parameters, examples: Sequence[Example]) -> Float[np.ndarray, "N C"]:
        images = self._images(params, examples, self.config.training.evaluation_batch_images)
        vectors = [self._vector({"params": params}, image) for image in images]
        return np.concatenate(jax.device_get(vectors))[: len(examples)]  # the last batch is filled up

    def _with_text(self, text: str, caption: Caption, example: Example) -> Caption:
        """`caption` with a text that the model did not say."""
        check = None if example.scene is None else check_caption(text, from_json(example.scene))
        return caption._replace(hypotheses=(Hypothesis(text, 0.0, 0.0, ()),), check=check)


TASK = Captioning
