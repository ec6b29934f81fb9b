"""Four fusions on questions about one shape, at equal depth and at equal work.

Command: python -m experiments.ablate configs/ablations/fusion.py
Time, estimated: 35 runs of three to eight minutes on one core. fusion_relations.py asks about relations.
"""

from vlm_jax.ablation.study import Comparison, Study, chain, variant, vary

COMMON = {"training.steps": 400, "training.evaluate_every": 50, "optimizer.warmup_steps": 50}
METRICS = ("accuracy", "accuracy/open", "accuracy/yes_no")


def get_study() -> Study:
    return Study(
        question="Which fusion answers best after a few minutes, at equal depth and at equal work?",
        comparisons=(
            Comparison(
                title="easy-VQA, 400 steps, equal depth",
                base="../quickstart.py",
                variants=vary({"model.fusion": ["cross", "co_attention", "late"]}),
                common=COMMON,
                metrics=METRICS,
            ),
            Comparison(
                title="easy-VQA, 400 steps, equal FLOPs",
                base="../quickstart.py",
                variants=chain(
                    vary({"model.fusion": ["cross", "late"]}),
                    # Its image side is computed for each of a picture's ten questions: no layer is narrow enough.
                    variant({"model.fusion": "co_attention", "model.width": 64}, name="co_attention, half as wide"),
                ),
                common=COMMON,
                match="flops",
                metrics=METRICS,
            ),
        ),
        seeds=(0, 1, 2, 3, 4),
    )
