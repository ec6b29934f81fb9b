"""Train a model: `python -m experiments.train configs/quickstart.py --optimizer.learning-rate 3e-4`."""

import sys

from vlm_jax.command_line import parse_train, run_command
from vlm_jax.invocation import command_name


def main(argv: list[str]) -> int:
    config, workdir = parse_train(argv)

    from vlm_jax.allocator import tune_malloc
    from vlm_jax.identity import changes
    from vlm_jax.interrupts import on_interrupt, print_line
    from vlm_jax.run_claim import claim
    from vlm_jax.training.loop import Trainer
    from vlm_jax.training.parallel import choose_devices, described
    from vlm_jax.training.stops import Interrupted, NotFinite

    tune_malloc()
    devices = choose_devices(config)  # refuses before anything is written
    with claim(workdir, config) as folder:
        before = folder.config()
        if folder.finished and config.training.steps <= before.training.steps:
            print(f"{folder.path} is finished: nothing to do. Look at result.json and predictions.png in it")
            for change in changes(before, config):
                print(
                    f"note: it stays as it was, without the change of {change}; "
                    f"{command_name('evaluate')} takes --change"
                )
            return 0
        print_line(described(devices))
        with on_interrupt(line=lambda: "training had not begun"):
            trainer = Trainer(config, folder)
        try:
            result = trainer.run()
        except Interrupted as stop:
            print_line(str(stop))
            return 128 + stop.number
        except NotFinite as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    for name, value in result["metrics"].items():
        print(f"{name:28s} {value:.4f}")
    for warning in result["warnings"]:
        print(f"warning: {warning}")
    print(f"saved in {folder.path}: result.json, predictions.jsonl, predictions.png")
    return 0


if __name__ == "__main__":
    run_command(main)
