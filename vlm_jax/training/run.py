"""One call that trains: a run from a config to its result."""

from pathlib import Path

from vlm_jax.allocator import tune_malloc
from vlm_jax.compilation_cache import keep_programs
from vlm_jax.config.run import Config
from vlm_jax.config.tasks import TASKS
from vlm_jax.failures import check_writable_name
from vlm_jax.identity import changes
from vlm_jax.interrupts import on_interrupt, print_line
from vlm_jax.invocation import command_name
from vlm_jax.run_claim import claim
from vlm_jax.settings.presets import load_preset
from vlm_jax.training.devices import choose_devices, describe_devices
from vlm_jax.training.evaluation import score_lines
from vlm_jax.training.loop import Trainer
from vlm_jax.types import Json


def train(config: Config | str | Path, run_dir: str | Path | None = None) -> dict[str, Json]:
    """Train, score and save a run, or go on with the one in `run_dir` (by default runs/NAME); its result.

    `config` is a config, the name of a preset, or a file. What happens is printed, a line at a time. A run that has
    ended stays as it is. Raises `InputError` for wrong input, `Interrupted` after a signal, with a checkpoint, and
    `NotFinite` where the loss is not finite.
    """
    if not isinstance(config, Config):
        config = load_preset(config, TASKS)
    path = Path("runs") / config.name if run_dir is None else Path(run_dir).expanduser()
    check_writable_name(path, "the run directory")
    tune_malloc()
    if config.compute.compilation_cache:
        keep_programs(config.data.directory)
    devices = choose_devices(config)  # refuses before anything is written
    with claim(path, config) as folder:
        before = folder.config()
        if folder.finished and config.training.steps <= before.training.steps:
            print(f"{folder.path} is finished: nothing to do. Look at result.json and predictions.png in it")
            for change in changes(before, config):
                print(
                    f"note: it stays as it was, without the change of {change}; "
                    f"{command_name('evaluate')} takes --change"
                )
            return folder.result()
        print_line(describe_devices(devices))
        with on_interrupt(line=lambda: "training had not begun"):
            trainer = Trainer(config, folder)
        result = trainer.run()
    print("\n".join(score_lines(result)))
    print(f"saved in {folder.path}: result.json, predictions.jsonl, predictions.png")
    return result
