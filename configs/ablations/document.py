"""The design's own choices, one change at a time: one sequence, a CNN's grid, words that ask the image's keys.

Command: python -m experiments.ablate configs/ablations/document.py
Time: 25 runs of two minutes on two cores.
"""

from vlm_jax.ablation.study import Comparison, Study, chain, variant, vary


def get_study() -> Study:
    return Study(
        question="What does each choice of the design bring: concatenation, the CNN's grid, an image side of its own?",
        comparisons=(
            Comparison(
                title="easy-VQA, 400 steps",
                base="../quickstart.py",
                variants=chain(
                    vary({"model.pattern": ["bidirectional"]}),
                    variant({"model.fusion": "cross"}, name="words ask the image's keys (cross)"),
                    variant({"model.image.cnn": "patches"}, name="patches in the place of the CNN's grid"),
                    variant({"model.image.positions": "shared"}, name="cells without positions"),
                ),
                common={"training.steps": 400, "training.evaluate_every": 50, "optimizer.warmup_steps": 50},
                metrics=("accuracy", "accuracy/open", "accuracy/yes_no"),
            ),
        ),
        seeds=(0, 1, 2, 3, 4),
    )
