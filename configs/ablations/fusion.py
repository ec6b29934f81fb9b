"""Four fusions on questions about one shape and on questions about relations, at equal depth and at equal work.

Command: python -m experiments.ablate configs/ablations/fusion.py
Time: 35 runs of two minutes on easy-VQA and 35 of up to six on Sort-of-CLEVR, on two cores.
"""

from vlm_jax.ablation.study import Comparison, Study, vary

FUSIONS = vary({"model.fusion": ["cross", "co_attention", "late"]})
EASY = {"training.steps": 400, "training.evaluate_every": 50, "optimizer.warmup_steps": 50}
# What co_attention can do in six minutes, which is the beginning: docs/results.md goes on from there.
RELATIONS = {
    "model.layers": 2,
    "training.steps": 250,
    "training.batch_images": 16,
    "training.evaluate_every": 50,
    "optimizer.warmup_steps": 50,
}


def get_study() -> Study:
    return Study(
        question="Which fusion answers best after a few minutes, at equal depth and at equal work?",
        comparisons=tuple(
            Comparison(f"{name}, equal {what}", base, FUSIONS, common, match, metrics)
            for name, base, common, metrics in (
                ("easy-VQA, 400 steps", "../quickstart.py", EASY, ("accuracy", "accuracy/open", "accuracy/yes_no")),
                (
                    "Sort-of-CLEVR, 250 steps",
                    "../sort_of_clevr.py",
                    RELATIONS,
                    ("accuracy", "accuracy/relational", "accuracy/non_relational"),
                ),
            )
            for what, match in (("depth", "steps"), ("FLOPs", "flops"))
        ),
        seeds=(0, 1, 2, 3, 4),
    )
