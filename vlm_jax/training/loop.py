"""The training run: set up or resume, step, validate, save, finish."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from typing import NamedTuple, SupportsFloat

import jax

from vlm_jax.config.run import Config
from vlm_jax.data.digests import from_row
from vlm_jax.data.loader import ReadAhead, Shard, TrainLoader
from vlm_jax.data.settings import UserDataset
from vlm_jax.data.sources import open_split
from vlm_jax.data.user_files.dataset import check_enough_images
from vlm_jax.errors import InputError
from vlm_jax.interrupts import on_interrupt, print_line, stop_requests
from vlm_jax.run_folder import RESULTS, SETUP, WEIGHTS, RunFolder
from vlm_jax.training.caching import cache, check_features, reads_features
from vlm_jax.training.checkpoint import SCORE, Checkpoints
from vlm_jax.training.continuation import adopt, check_data, check_sources, record_data
from vlm_jax.training.devices import choose_devices, describe_devices
from vlm_jax.training.evaluation import SplitExamples, code, commit, evaluate_run, write_contact_sheet
from vlm_jax.training.initialization import describe, start
from vlm_jax.training.interval import Interval
from vlm_jax.training.logging import MetricsLog, Progress, load_tensorboard
from vlm_jax.training.optimizer import make_optimizer
from vlm_jax.training.parallel import METHODS, CompiledAhead
from vlm_jax.training.selection import Selection
from vlm_jax.training.setup import Trained, fresh_params, load_trained, make_encoder, make_task, saved_steps
from vlm_jax.training.step import TrainState, create_state, make_step
from vlm_jax.trees import num_bytes
from vlm_jax.types import Batch, Example, Json, Parameters

SHOWN = 20  # ids that a message names


class Interrupted(Exception):
    """The run was asked to stop by a signal, and its state is saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class NotFinite(Exception):
    """Loss or gradient is not finite at an optimizer step; the state before that step is saved."""

    def __init__(self, step: int, ids: Sequence[str]) -> None:
        """`ids` are those of the texts in the batch of that step."""
        saved = f"the state before it is saved as step {step - 1}" if step > 1 else "nothing was trained before it"
        more = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
        super().__init__(
            f"loss or gradient is not finite at optimizer step {step}; {saved}; texts of that batch: "
            f"{', '.join(ids[:SHOWN])}{more}"
        )


class Taken(NamedTuple):
    """A batch on its devices, and what a checkpoint or an error message must know of it."""

    batch: Batch
    text_ids: list[list[str]]
    before: dict[str, Json]
    """Data position before this batch."""
    after: dict[str, Json]


class Trainer:
    """One run in one folder: everything is built here, `run` trains to the end."""

    def __init__(self, config: Config, folder: RunFolder, *, write_line: Callable[[str], None] = print_line) -> None:
        began = time.perf_counter()
        self.config, self.folder, self.write_line = config, folder, write_line
        # Now: by the end the files may be others than those that run.
        self._made = {"commit": commit(), "code": code()}
        choose_devices(config)  # before anything else starts a backend
        train, validation = open_split(config.data, "train"), open_split(config.data, "validation")
        if isinstance(config.data, UserDataset):
            check_enough_images(config.data)
        check_sources(config, folder)
        check_features(config, folder)
        self._record_data({"train": train, "validation": validation})
        self.task = make_task(config, make_encoder(config, folder, train), folder)
        shapes = jax.eval_shape(self.task.init_params, jax.random.key(config.seed))
        optimizer = make_optimizer(config.optimizer, shapes, steps=config.training.steps)
        make_state = partial(create_state, transformation=optimizer, ema=config.optimizer.ema is not None)
        state_shapes = jax.eval_shape(make_state, shapes)
        self.parallel = METHODS[config.compute.parallelism](self._with_memory(state_shapes))
        self.task.place(self.parallel.replicated)
        self.train, self.validation = self.task.prepare(train), self.task.prepare(validation)
        self.task.learn_from(self.train)
        self._splits = {"train": train, "validation": validation}
        step = make_step(config, self.task.loss_sums, optimizer, shapes, axis_name=self.parallel.axis_name)
        if reads_features(config) or saved_steps(folder) >= config.training.steps:
            self.step = self.parallel.compile(step)
        else:  # a thread compiles from here on: the shapes of a batch are known
            self.step = self.parallel.compile(step, lambda: (state_shapes, self._loader().like()))
        params = self._initial_params()
        cache(self.task, self._frozen(params), config, self._cached_splits())
        self.state = jax.jit(make_state, out_shardings=self.parallel.replicated)(params)
        self.loader = self._loader()
        times = dict.fromkeys(("wall_seconds", "compile_seconds", "step_seconds", "waited_seconds"), 0.0)
        self.totals = {**times, "examples": 0.0}
        self.interval, self.selection = Interval(), Selection(self.task.metric)
        self._saved = 0
        """The optimizer step of the newest checkpoint."""
        self._devices_before: str | None = None
        self._setup_seconds = time.perf_counter() - began

    def _loader(self) -> TrainLoader:
        shard, ahead = Shard(jax.process_index(), jax.process_count()), ReadAhead(self.config.data.threads)
        order = {"seed": self.config.seed, "batch_images": self.config.training.batch_images}
        return TrainLoader(self.train, self.task.encode, **order, shard=shard, read_ahead=ahead)

    def _with_memory(self, state: TrainState) -> list[jax.Device]:
        """The devices for a state of these shapes, printed where they are fewer for its size."""
        size = num_bytes(state)
        devices = choose_devices(self.config, state_bytes=size)
        if len(devices) < len(choose_devices(self.config)):
            reason = f"the state has {size / 2**20:,.0f} MiB, too much for each of more devices"
            self.write_line(f"{describe_devices(devices)}; {reason}")
        return devices

    def _record_data(self, splits: dict[str, Sequence[Example]]) -> None:
        """Refuse data that is not what the run began with; what is new of it is kept."""
        record_data(self.folder, check_data(self.config, self.folder, splits))

    def _cached_splits(self) -> dict[str, Sequence[Example]]:
        """The splits whose images are cached: training images that are read less than once are decoded sooner."""
        settings, splits = self.config.training, dict(self._splits)
        if settings.steps * settings.batch_images < len(splits["train"]) and not reads_features(self.config):
            del splits["train"]
        return splits

    def _frozen(self, params: Parameters) -> Parameters:
        """Parameters whose frozen image encoder is the run's: those of a run that is resumed are not its first ones."""
        if not self.config.data.stored_views or not saved_steps(self.folder):
            return params
        where = self.parallel.replicated
        return load_trained(self.config, self.folder, self.task.encode, which="latest", where=where).params

    def _initial_params(self) -> Parameters:
        """Fresh ones, and over them what the config's sources give; a run that is resumed needs no source any more."""
        key = jax.random.key(self.config.seed)
        params = fresh_params(self.task, key, self.parallel.replicated)
        if saved_steps(self.folder):
            self.weights = self.folder.weights()
            return params
        params, self.weights = start(
            self.config, self.task.start(params, key), self.task.answers, self.task.encode.tokenizer
        )
        if self.weights is not None:
            self.folder.write_json(WEIGHTS, self.weights)
            for line in describe(self.weights):
                self.write_line(line)
        return jax.device_put(params, self.parallel.replicated)

    def run(self) -> dict[str, Json]:
        """Train from wherever the folder stands to the last step, then score the test split once; the result.

        Raises `Interrupted` after a signal (`interrupts`), `NotFinite` where the loss is not finite; both leave a
        checkpoint. A signal before the first step is done leaves at once.
        """
        if not self.folder.sealed:
            self.folder.seal(*SETUP)
        made_with = self.folder.made_with()
        writing = Checkpoints(self.folder.checkpoints, config=self.config, made_with=made_with)
        with writing as checkpoints, on_interrupt(line=self._stands):
            start = self._resume(checkpoints)
            self._steps(start, checkpoints)
            self.loader.close()
            return self._finish(checkpoints)

    def _stands(self) -> str:
        """What a person who interrupts is told of what is kept."""
        if self._saved == self.config.training.steps:
            if self.folder.finished:
                return "trained and scored"
            return "trained to the end and saved, and not scored yet; the same command scores it"
        if self._saved:
            return f"saved is optimizer step {self._saved}; the same command resumes there"
        return "nothing was trained or saved"

    def _resume(self, checkpoints: Checkpoints) -> int:
        self._saved = checkpoints.latest() or 0
        if self._saved:
            self.state, position = checkpoints.restore(self.state)
            self.loader.restore(position["loader"])
            self.totals |= position["totals"]
            self._devices_before = position["devices"]
            self.interval.restore(position["interval"])
            self.selection.restore(position["selection"])
            self.loader.seconds_waited = self.totals["waited_seconds"]
            step, steps = int(self.state.step), self.config.training.steps
            self.write_line(f"resuming after optimizer step {step} of {steps}")
            if step > steps:
                raise InputError(
                    f"{self.folder.path} has taken {step} optimizer steps; training.steps {steps} must be at least that"
                )
        self.totals["wall_seconds"] += self._setup_seconds
        start = self._saved = int(self.state.step)
        self.state = self.parallel.put(self.state)
        return start

    def _go_on(self, start: int, write_line: Callable[[str], None]) -> None:
        """Record under which settings the run goes on; its earlier result is one no longer."""
        for line in adopt(self.config, self.folder, start, devices=(self._devices_before, self._devices())):
            write_line(line)
        self.folder.unseal(*RESULTS)

    def _header(self) -> list[str]:
        """What is trained on what, for how long and where, before anything is compiled."""
        settings, images = self.config.training, len(self.train)
        passes = settings.steps * settings.batch_images / images
        count = sum(leaf.size for leaf in jax.tree.leaves(self.parallel.take(self.state).params))
        return [
            f"data: {self.config.data.kind}, {images:,} training and {len(self.validation):,} validation images",
            f"model: {count:,} parameters, {settings.steps:,} steps of {settings.batch_images} images "
            f"({passes:.3g} passes over the data), in {self.folder.path}",
        ]

    def _devices(self) -> str:
        return f"{self.parallel.count} x {jax.devices()[0].device_kind}"

    def _take(self) -> Taken:
        before = self.loader.state()
        loaded = next(self.loader)
        return Taken(self.parallel.put_batch(loaded.batch), loaded.text_ids, before, self.loader.state())

    def _steps(self, start: int, checkpoints: Checkpoints) -> None:
        settings = self.config.training
        if start == settings.steps:
            self._go_on(start, self.write_line)
            return
        for line in (*self._header(), *self.task.reach(self.train, self.validation)):
            self.write_line(line)
        upcoming = self._take()
        load_tensorboard()  # here rather than after the first step, which is still being compiled
        with Progress(settings.steps, start_step=start) as progress, ExitStack() as training:
            for step in range(start + 1, settings.steps + 1):
                taken = upcoming
                began = time.perf_counter()
                with progress.compiling("the train step") if step == start + 1 else nullcontext():
                    with jax.transfer_guard("disallow"):  # what crosses to the devices is put there, never implied
                        self.state, metrics = self.step(self.state, taken.batch)
                    # The next batch travels while the devices compute.
                    upcoming = self._take() if step < settings.steps else None
                    metrics = jax.device_get(metrics)
                if step == start + 1:  # until here a signal leaves at once, and the folder is as it was
                    self._go_on(start, progress.write_line)
                    log = training.enter_context(MetricsLog(self.folder.path, start_step=start))
                    stopped = training.enter_context(stop_requests())
                self._account(metrics, time.perf_counter() - began, first=step == start + 1)
                if not metrics["finite"]:
                    if step > 1:
                        self._save(checkpoints, taken.before, None)
                    raise NotFinite(step, [question for ids in taken.text_ids for question in ids if question])
                last = step == settings.steps
                if step % settings.log_every == 0 or last:
                    values = self.interval.close() | {"waited_seconds": self.loader.seconds_waited}
                    log.write(step, values)
                    progress.update(step, values)
                due = step % settings.evaluate_every == 0 or last
                scores = self._validate(step, log, progress) if due else None
                if due or stopped():
                    self._save(checkpoints, taken.after, scores)
                    if number := stopped():
                        goes_on = "scores it" if last else "resumes there"
                        message = f"stopped after optimizer step {step} and saved; the same command {goes_on}"
                        raise Interrupted(message, number)

    def _account(self, metrics: Mapping[str, SupportsFloat], seconds: float, *, first: bool) -> None:
        self.totals["wall_seconds"] += seconds
        self.totals["waited_seconds"] = self.loader.seconds_waited
        self.interval.add(metrics, 0.0 if first else seconds)
        if first:
            ahead = isinstance(self.step, CompiledAhead)
            self.totals["compile_seconds"] += self.step.compile_seconds if ahead else seconds
        else:
            self.totals["step_seconds"] += seconds
            self.totals["examples"] += float(metrics["examples"])

    def _validate(self, step: int, log: MetricsLog, progress: Progress) -> dict[str, float]:
        began = time.perf_counter()
        progress.show(f"step {step}/{self.config.training.steps}  validating")
        state = self.parallel.take(self.state)
        predictions = self.task.predict(state.params if state.ema is None else state.ema, self.validation)
        scores = self.task.score(predictions)
        log.write(step, {f"validation/{name}": value for name, value in scores.items()})
        progress.write_line(f"step {step}: validation {self.task.metric} {scores[self.task.metric]:.4f}")
        for warning in [*self.task.warnings(predictions, scores), *self.selection.add(step, scores[self.task.metric])]:
            progress.write_line(f"warning: {warning}")
        if self.task.contact_sheets:
            title = f"{self.config.name}, validation after step {step}: {self.task.title(scores)}"
            file = self.folder.path / f"validation-{step}.png"
            write_contact_sheet(self.config, predictions, self.validation, file, title=title)
        self.totals["wall_seconds"] += time.perf_counter() - began
        return {SCORE: scores[self.task.metric]}

    def _save(self, checkpoints: Checkpoints, position: dict[str, Json], scores: dict[str, float] | None) -> None:
        saved_position = {"loader": position, "totals": self.totals, "devices": self._devices()}
        saved_position |= {"interval": self.interval.sums(), "selection": self.selection.state()}
        state = self.parallel.take(self.state)
        checkpoints.save(state, saved_position, scores)
        self._saved = int(state.step)

    def _finish(self, checkpoints: Checkpoints) -> dict[str, Json]:
        began = time.perf_counter()
        state = self.parallel.take(self.state)
        params, step = checkpoints.restore_params(state.params, which="best", ema=state.ema is not None)
        test = open_split(self.config.data, "test")
        self._record_data({"test": test})
        self._splits["test"] = test
        cache(self.task, params, self.config, self._cached_splits())
        scored = SplitExamples("test", self.task.prepare(test), self.train)
        self.write_line(f"scoring the test split with the best checkpoint, step {step}")
        metadata = {**self._times(), "weights": self.weights, **self._made}
        digests = {split: from_row(row).sha256 for split, row in self.folder.data().items()}
        metadata |= {"data": digests, "history": self.folder.history()}
        model, warnings = Trained(self.task, params, step), self.selection.warnings()
        result = evaluate_run(model, scored, folder=self.folder, metadata=metadata, warnings=warnings)
        self.folder.seal(*RESULTS)
        self.write_line(f"scored in {time.perf_counter() - began:.1f} s")
        return result

    def _times(self) -> dict[str, Json]:
        """What training took; of a run that began with the training of another, what it took itself."""
        if (run := self.folder.trained_as()) is not None:
            none = dict.fromkeys(("examples_per_second", "compile_seconds", "waited_seconds"))
            return none | {"wall_seconds": self._setup_seconds, "trained_as": run}
        times = {name: self.totals[name] for name in ("wall_seconds", "compile_seconds", "waited_seconds")}
        return {"examples_per_second": self.totals["examples"] / max(self.totals["step_seconds"], 1e-9)} | times
