"""Who may see whom: for answers, whether the image sees the question; for captions, where the words read the image.

Command: python -m experiments.ablate configs/ablations/patterns.py
Time: 6 runs of two to five minutes and 6 of six, on two cores.
"""

from vlm_jax.ablation.study import Comparison, Study, vary


def get_study() -> Study:
    return Study(
        question="Does it help that the image sees the words? And does one sequence caption better than asking?",
        comparisons=(
            Comparison(
                title="Answers, easy-VQA, 400 steps",
                base="../quickstart.py",
                variants=vary({"model.pattern": ["bidirectional"]}),
                common={"training.steps": 400, "training.evaluate_every": 50, "optimizer.warmup_steps": 50},
                metrics=("accuracy", "accuracy/open", "accuracy/yes_no"),
            ),
            Comparison(
                title="Captions, shape_scenes, 1,000 steps",
                base="../shape_scenes_captioning.py",
                variants=vary({"model.fusion": ["cross"]}),
                common={"training.steps": 1_000, "training.evaluate_every": 250},
                metrics=("rule_accuracy", "objects_named", "cider_d"),
            ),
        ),
    )
