"""Image generation: the image tokens of an image, from its prompt and the image tokens that are not masked."""

import dataclasses
from collections.abc import Sequence
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Sharding
from jaxtyping import Array, Float, Int, Key, UInt8

from vlm_jax.config.image_generation import Autoregressive, Masked
from vlm_jax.config.image_generation import ImageGeneration as Config
from vlm_jax.config.use import Candidates, ImageScoring
from vlm_jax.data.encoding import ExampleEncoder
from vlm_jax.decoding import ImageTokenDecoder, shift_right, token_log_probabilities
from vlm_jax.errors import InputError
from vlm_jax.models.image_token_vectors import start_alike
from vlm_jax.models.vlm import VisualLanguageModel
from vlm_jax.placement import split_over_devices
from vlm_jax.run_folder import IMAGE_TOKENIZER, RunFolder
from vlm_jax.tasks.base import Item, LoadTask, Sums
from vlm_jax.tasks.baselines import shuffled_difference
from vlm_jax.tasks.examples import ChangedExamples, derangement, place_keys, spread
from vlm_jax.tasks.generated import GeneratedImages, check_generated, score_generated, warnings_about
from vlm_jax.tasks.image_distance import ImageFeatures, distances
from vlm_jax.tasks.image_token_loss import masked_inputs, token_losses, token_weights
from vlm_jax.tasks.nearest_image import MOST
from vlm_jax.tasks.reach import image_token_reach
from vlm_jax.tasks.reranker import Reranker, load_reranker
from vlm_jax.tasks.text_task import TextTask
from vlm_jax.tasks.trained_tokenizer import TrainedTokenizer, differing, save_tokenizer, tokenizer_run
from vlm_jax.types import Batch, Example, Json, Parameters

Generation = Masked | Autoregressive
DEFAULTS = ImageScoring()
DROP, MASK, MODEL = range(3)  # what an image's key is used for


class ImageGeneration(TextTask):
    """The task of one config: its encoder, its model, its loss, its decoding and its scores."""

    scores = (
        *("log_likelihood", "log_frequency", "prompt_gain", "frechet_distance"),
        *("sample_diversity", "prompt_diversity"),
        *("objects_right", "objects_and_sizes_right", "count_right", "relation_right", "all_right"),
    )
    shares = ("objects_right", "objects_and_sizes_right", "count_right", "relation_right", "all_right")
    unit = "objects right, or log-likelihood"
    text_name = "prompt"
    reads_images = False
    shuffled = "shuffled_prompts"
    contact_sheets = True

    @classmethod
    def metric_of(cls, config: Config) -> str:
        """The objects that a rule finds where the scenes are known; else the log-likelihood of the real images."""
        return "objects_right" if config.data.scenes else "log_likelihood"

    @classmethod
    def scale_of(cls, config: Config) -> tuple[str, ...]:
        """Other image tokens, or given in another order, have another log-likelihood."""
        return () if config.data.scenes else ("image_tokenizer.run", "generation.kind")

    @classmethod
    def num_classes(cls, config: Config) -> int:
        """The codebook size."""
        return config.image_tokenizer.quantizer.codebook_size

    @classmethod
    def outputs(cls, config: Config, classes: int | None) -> tuple[int, str]:
        """The image tokens."""
        return cls.num_classes(config), f"{cls.num_classes(config):,} image tokens"

    @classmethod
    def input_size(cls, config: Config) -> tuple[int, int]:
        """The grid of image tokens."""
        return config.image_tokenizer.grid_size(config.image.size)

    @classmethod
    def read_item(cls, line: dict[str, Json]) -> Item:
        """The mean over images of the objects that are right; else the log-likelihood of the real image."""
        checks = line["checks"]
        score = sum(check["objects"] for check in checks) / len(checks) if checks else line["log_likelihood"]
        return Item(line["image_id"], score, line["prompt"])

    @classmethod
    def check_sources(cls, config: Config) -> None:
        """Raise `InputError` where the image tokenizer's run has not ended or does not fit."""
        tokenizer_run(config)

    @classmethod
    def build(
        cls, config: Config, encode: ExampleEncoder, folder: RunFolder, load: LoadTask, scoring: ImageScoring
    ) -> "ImageGeneration":
        """The task of a run, which keeps the image tokenizer that it began with in its folder."""
        if not folder.sealed:
            run = tokenizer_run(config)
            save_tokenizer(folder.path / IMAGE_TOKENIZER, run.config(), load(run)[1])
        tokenizer = TrainedTokenizer(folder.file(IMAGE_TOKENIZER))
        reranker = load_reranker(scoring.reranker, load) if scoring.reranker is not None else None
        return cls(config, encode, tokenizer, scoring, reranker)

    def __init__(
        self,
        config: Config,
        encode: ExampleEncoder,
        tokenizer: TrainedTokenizer,
        scoring: ImageScoring = DEFAULTS,
        reranker: Reranker | None = None,
    ) -> None:
        if difference := differing(config, tokenizer.config):
            raise InputError(f"the image tokenizer has {difference}, and the config says otherwise; give the same")
        most = config.training.evaluation_batch_images
        if reranker is None and scoring.num_candidates > most:
            raise InputError(
                f"num_candidates is {scoring.num_candidates}, and all candidates of an image are generated at once; "
                f"choose at most {most}, or raise training.evaluation_batch_images"
            )
        self.config, self.tokenizer, self.scoring, self.reranker = config, tokenizer, scoring, reranker
        self._pixels = dataclasses.replace(encode, image=tokenizer.image, texts_per_image=1)
        self.encode = encode
        self.model = VisualLanguageModel(config.architecture, tokenizer.codebook_size)
        self.metric = self.metric_of(config)
        self._empty = tuple(row[0] for row in encode.encode_texts([""]))
        self._autoregressive = isinstance(config.generation, Autoregressive)
        self._weights: Float[np.ndarray, " V"] | None = None
        self._decoders: dict[tuple[Generation, int], ImageTokenDecoder] = {}
        self._likelihood = split_over_devices(self._log_likelihood)

    def init_params(self, key: Key[Array, ""]) -> Parameters:
        """Fresh float32 parameters."""
        ids = jnp.zeros((1, 1, self.encode.max_length), jnp.int32)
        tokens = jnp.zeros((1, *self.tokenizer.grid), jnp.int32)
        return self.model.init(key, tokens, ids, jnp.ones(ids.shape, bool))["params"]

    def start(self, params: Parameters, key: Key[Array, ""]) -> Parameters:
        """With like vectors for image tokens that look alike: what one of them learns, all of them learn."""
        appearance = jnp.asarray(self.tokenizer.appearance())
        for number, place in enumerate(("image", "head")):
            vectors = start_alike(params[place]["vectors"], appearance, key=jax.random.fold_in(key, number))
            params = params | {place: params[place] | {"vectors": vectors}}
        return params

    @cached_property
    def _features(self) -> ImageFeatures | None:
        scoring = self.scoring
        return ImageFeatures(scoring.features, scoring.features_sha256) if scoring.features is not None else None

    def metadata(self) -> dict[str, Json]:
        """The image tokenizer, the network whose features a distance is of, and the reranker of candidates."""
        tokenizer = {"run": str(self.config.image_tokenizer.run), "sha256": self.tokenizer.digest}
        named = {"features": self._features, "reranker": self.reranker}
        return {"image_tokenizer": tokenizer} | {name: model.origin for name, model in named.items() if model}

    def place(self, where: Sharding) -> None:
        """Put the image tokenizer and, where there are any, the reranker and the network of the distance there."""
        for model in (self.tokenizer, self.reranker, self._features):
            if model is not None:
                model.place(where)

    def prepare(self, examples: Sequence[Example]) -> ChangedExamples:
        """The examples with their image tokens, which are computed once and kept."""
        _ = self._features  # an error in the network is raised before anything is trained
        tokens = self.tokenizer.cached(examples, self._pixels, self.config.data)
        return ChangedExamples(examples, lambda index, example: example._replace(image_tokens=tokens[index]))

    def learn_from(self, train: ChangedExamples) -> None:
        """Weights of the image tokens in the loss, by how rare each is."""
        if power := self.config.generation.token_frequency_power:
            tokens = np.ravel([example.image_tokens for example in train])
            self._weights = token_weights(tokens, self.tokenizer.codebook_size, power)

    def loss_sums(self, params: Parameters, batch: Batch, keys: Key[Array, " I"]) -> Sums:
        """Cross-entropy of the masked image tokens, or of each given those before it; a share has lost its prompt."""
        settings = self.config.generation
        drop, places, dropout = (
            jax.vmap(lambda key, use=use: jax.random.fold_in(key, use))(keys) for use in (DROP, MASK, MODEL)
        )
        without = jax.vmap(jax.random.bernoulli, (0, None))(drop, settings.cond_drop_prob)[:, None, None]
        ids, mask = (
            jnp.where(without, row, prompt)
            for row, prompt in zip(self._empty, (batch.input_ids, batch.text_mask), strict=True)
        )
        tokens, counted = masked_inputs(batch.image_tokens, places, settings, mask_id=self.tokenizer.codebook_size)
        logits = self.model.bind({"params": params}).task_logits(tokens, ids, mask, keys=dropout)
        target = jnp.broadcast_to(batch.image_tokens.reshape(len(tokens), 1, -1), logits.shape[:-1])
        assert self._weights is not None or not settings.token_frequency_power, "learn_from was not called"
        smoothing = self.config.training.label_smoothing
        loss, right = token_losses(logits, target, weights=self._weights, smoothing=smoothing)
        weight = counted * batch.weight[..., None]
        return Sums(jnp.sum(loss * weight), jnp.sum(weight), jnp.sum(right * weight), jnp.sum(batch.weight))

    def _log_likelihood(self, params, tokens, ids, mask) -> Float[Array, " I"]:
        """Of each image, the mean log-probability of an image token, in one pass: how well the prompt fits it.

        All image tokens are masked; with `autoregressive` each is conditioned on those before it.
        """
        nothing = jnp.full(tokens.shape, self.tokenizer.codebook_size, jnp.int32)
        shown = shift_right(tokens, mask_id=self.tokenizer.codebook_size) if self._autoregressive else nothing
        logits = self.model.bind({"params": params}).task_logits(shown, ids[:, None], mask[:, None])
        return jnp.mean(token_log_probabilities(logits[:, 0], tokens), axis=-1)

    def decoder(self, settings: Generation, num_candidates: int = 1) -> ImageTokenDecoder:
        """The compiled decoder of some settings."""
        if (settings, num_candidates) not in self._decoders:
            shape = {"grid": self.tokenizer.grid, "codebook_size": self.tokenizer.codebook_size, "empty": self._empty}
            decoder = ImageTokenDecoder(self.model, settings, num_candidates=num_candidates, **shape)
            self._decoders[settings, num_candidates] = decoder
        return self._decoders[settings, num_candidates]

    def generate_images(
        self,
        params: Parameters,
        prompts: Sequence[str],
        settings: Generation | None = None,
        candidates: Candidates | None = None,
        *,
        batch: int | None = None,
    ) -> UInt8[np.ndarray, "N S h w 3"]:
        """`candidates.num_images` images of each prompt; a prompt's place decides its images, not the batch.

        `settings` are by default the config's, `candidates` those of the scoring. `batch`, by default as many as are
        evaluated at a time, counts candidates.
        """
        settings, candidates = settings or self.config.generation, candidates or self.scoring
        batch = batch or self.config.training.evaluation_batch_images
        count = candidates.num_images
        if self.reranker and candidates.num_candidates > 1:
            many = Candidates(num_images=count * candidates.num_candidates)
            tokens = self._generate_tokens(params, prompts, settings, many, batch)
            repeated = [prompt for prompt in prompts for _ in range(count)]
            images = self.reranker.best(repeated, tokens, candidates.num_candidates, self.tokenizer.decode)
        else:
            images = self.tokenizer.decode(self._generate_tokens(params, prompts, settings, candidates, batch))
        return images.reshape(len(prompts), count, *images.shape[1:])

    def _generate_tokens(
        self,
        params: Parameters,
        prompts: Sequence[str],
        settings: Generation,
        candidates: Candidates,
        batch: int,
    ) -> Int[np.ndarray, "P gh gw"]:
        size = max(1, batch // candidates.num_candidates)
        count = len(prompts) * candidates.num_images
        texts = [prompt for prompt in prompts for _ in range(candidates.num_images)] + [""] * (-count % size)
        ids, mask = self.encode.encode_texts(texts)
        decode, batches = self.decoder(settings, candidates.num_candidates), []
        for first in range(0, len(texts), size):
            chunk = slice(first, first + size)
            keys = place_keys(self.config.seed, first, size)
            batches.append(decode({"params": params}, ids[chunk], mask[chunk], keys))
        return np.concatenate(jax.device_get(batches))[:count]

    def predict(
        self,
        params: Parameters,
        examples: Sequence[Example],
        *,
        prompts: Sequence[str] | None = None,
    ) -> list[GeneratedImages]:
        """Images for the first text of every example, or for `prompts` in their place, held against its scene."""
        rows = list(examples)
        texts = (
            [example.texts[0].text if example.texts else "" for example in rows] if prompts is None else list(prompts)
        )
        images = self.generate_images(params, texts)
        likelihoods = self.log_likelihoods(params, rows, texts)
        gains = [float("nan")] * len(rows)
        if prompts is None and len(rows) > 1:
            exchanged = [texts[place] for place in derangement(len(texts), self.config.seed)]
            without = self.log_likelihoods(params, rows, exchanged)
            both = zip(texts, exchanged, likelihoods, without, strict=True)
            gains = [float("nan") if text == swapped else own - its for text, swapped, own, its in both]
        return [
            GeneratedImages(row.image_id, text, chunk, check_generated(row, chunk), likelihood, gain, row.image_tokens)
            for row, text, chunk, likelihood, gain in zip(rows, texts, images, likelihoods, gains, strict=True)
        ]

    def log_likelihoods(self, params: Parameters, examples: Sequence[Example], texts: Sequence[str]) -> list[float]:
        """How well each text fits the image of its example."""
        size = self.config.training.evaluation_batch_images
        rest = -len(texts) % size
        tokens = np.stack([example.image_tokens for example in (*examples, *[examples[0]] * rest)])
        ids, mask = self.encode.encode_texts([*texts, *[""] * rest])
        batches = [
            self._likelihood(params, tokens[chunk], ids[chunk], mask[chunk])
            for chunk in (slice(first, first + size) for first in range(0, len(tokens), size))
        ]
        return np.concatenate(jax.device_get(batches))[: len(texts)].tolist()

    def score(self, generated: Sequence[GeneratedImages]) -> dict[str, float]:
        """The log-likelihood of the real images and, where the scene is known, how much of it a generated image has."""
        return score_generated(generated)

    def reach(self, train: ChangedExamples, validation: ChangedExamples) -> list[str]:
        """The score of true images that went through their image tokens."""
        return image_token_reach(validation, self.tokenizer.decode, metric=self.metric)

    def warnings(self, generated: Sequence[GeneratedImages], metrics: dict[str, float]) -> list[str]:
        """What a person should know of the scores."""
        return warnings_about(generated, metrics)

    def title(self, metrics: dict[str, float]) -> str:
        """The scores in a few words."""
        if "objects_right" in metrics:
            return f"{metrics['objects_right']:.1%} of the objects right"
        return f"{metrics['log_likelihood']:.2f} nats an image token"

    def baselines(
        self,
        params: Parameters,
        examples: ChangedExamples,
        train: ChangedExamples,
        predictions: Sequence[GeneratedImages],
    ) -> dict[str, float]:
        """Prompts that no training image has, apart; prompts exchanged between the examples; distances, if wanted."""
        known = {text.text for example in train for text in example.texts}
        new = [row for row in predictions if row.prompt not in known]
        exchanged = [predictions[place].prompt for place in derangement(len(predictions), self.config.seed)]
        rows = {"unseen_prompts": self.score(new) if new else {}}
        metrics = {"unseen_prompts/count": float(len(new))} | self._distances(examples, train, predictions)
        if len({row.prompt for row in predictions}) > 1:
            generated = self.predict(params, examples, prompts=exchanged)
            rows[f"baseline/{self.shuffled}"] = self.score(generated)
            scores = [[row.score(self.metric) for row in each] for each in (predictions, generated)]
            metrics |= shuffled_difference(self.shuffled, self.metric, predictions, *scores)
        return metrics | {f"{name}/{metric}": value for name, row in rows.items() for metric, value in row.items()}

    def _distances(
        self, examples: ChangedExamples, train: ChangedExamples, predictions: Sequence[GeneratedImages]
    ) -> dict[str, float]:
        if self._features is None:
            return {}
        real, known = (
            [self._pixels(example).image for example in chunk]
            for chunk in (examples.unchanged, spread(train.unchanged, MOST))
        )
        generated = [row.images[0] for row in predictions]
        decoded = list(self.tokenizer.decode(np.stack([row.tokens for row in predictions])))
        rows = {"generated": generated, "decoded": decoded, "real": real, "train": known}
        return distances(self._features, **rows, seed=self.config.seed)


TASK = ImageGeneration
