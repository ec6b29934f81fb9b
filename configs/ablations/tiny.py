"""The smallest study that goes through everything: four fusions, three seeds, three minutes on two cores.

Question: does it work here?
Command: python -m experiments.ablate configs/ablations/tiny.py --jobs 2
"""

from vlm_jax.ablation.study import Comparison, Study, vary


def get_study() -> Study:
    return Study(
        question="Does the way from a study to its report work? The models are too small to differ.",
        finding="It does. Forty steps teach little more than the blind prior, and three seeds tell nothing apart.",
        comparisons=(
            Comparison(
                title="Fusions, easy-VQA, 40 steps",
                base="../tiny.py",
                variants=vary({"model.fusion.kind": ["cross", "co_attention", "late"]}),
                metrics=("accuracy", "accuracy/open", "accuracy/yes_no"),
            ),
        ),
    )
