"""The report of a study: every number and verdict is spelled out, and no text in it is taken for markup."""

import dataclasses
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vlm_jax.ablation.canvas import PALETTE, style
from vlm_jax.ablation.costs import Cost
from vlm_jax.ablation.disagreements import Disagreement, disagreements
from vlm_jax.ablation.plots import by_kind, curves, effects, plots, score_by_cost
from vlm_jax.ablation.records import Findings, Record, Row
from vlm_jax.ablation.report import Report, markdown, write
from vlm_jax.ablation.statistics import Difference, Summary
from vlm_jax.ablation.tables import grids
from vlm_jax.ablation.wording import (
    MISSING,
    amount,
    duration,
    format_value,
    heading,
    is_share,
    mean_with_interval,
    score,
    verdict,
)
from vlm_jax.config.captioning import Captioning
from vlm_jax.config.image_generation import ImageGeneration, TrainedImageTokenizer
from vlm_jax.config.run import TextTraining
from vlm_jax.config.vqa import VQA
from vlm_jax.data.user_files.table import TableCaptions, TableQuestions
from vlm_jax.settings.changes import with_changes

NASTY = "<script>alert('x')</script> | `b` $x_{ \\"
COST = Cost(1_204_113, 2_410_000_000)


def record(
    value, seed=0, *, folder=Path("nowhere"), config=None, curve=((100, 0.4), (200, 0.6)), weights=None, **kinds
):
    metrics = {"accuracy": value, **{f"accuracy/{kind}": score for kind, score in kinds.items()}}
    result = {"metrics": metrics | {"baseline/majority": 0.25}, "examples_per_second": 1234.5, "wall_seconds": 61.0}
    return Record(folder, with_changes(config or VQA(), {"seed": seed}), result, dict(curve), weights)


def variant(label, values, *, planned=None, cost=COST, curve=((100, 0.4), (200, 0.6))):
    records = [record(value, seed, curve=curve) for seed, value in enumerate(values)]
    return Row(label, records, planned=planned or len(values), cost=cost)


def table(*rows, title="Fusion", metrics=("accuracy",), match="steps"):
    return Findings(title, rows, base="easy_vqa.py", match=match, metrics=metrics)


def report(*tables, **changes):
    content = {"question": "Does it help?", "finding": "It does.", "commands": ("python -m experiments.ablate x.py",)}
    content |= {"metadata": {"level": 0.95, "commit": None, "versions": {"jax": "0.8", "numpy": None}}} | changes
    return Report(tables=tables, **content)


CLEAR = table(
    variant("concat", [0.80, 0.81, 0.82]), variant("cross", [0.90, 0.91, 0.92]), variant("late", [0.7, 0.9, 0.8])
)


def columns(line):
    assert line.startswith("| ") and line.endswith(" |")
    return re.split(r"(?<!\\)(?:\\\\)*\|", line)[1:-1]


def tables_of(text):
    blocks, block = [], []
    for line in [*text.splitlines(), ""]:
        if line.startswith("|"):
            block.append(line)
        elif block:
            blocks.append(block)
            block = []
    return blocks


def page_of(study_report, folder):
    write(study_report, folder)
    return (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("metric", "share"),
    [
        ("accuracy", True),
        ("accuracy/yes_no", True),
        ("baseline/majority", True),
        ("baseline/no_image/rule_accuracy", True),
        ("unseen_prompts/objects_right", True),
        ("cider_d", False),
        ("baseline/constant/cider_d", False),
        ("unseen_prompts/count", False),
        ("psnr", False),
        ("log_likelihood", False),
    ],
)
def test_shares_are_in_percent_and_nothing_else(metric, share):
    assert is_share(metric) == share
    assert heading(metric) == (f"{metric}, %" if share else metric)


def test_every_metric_of_a_task_that_is_a_mean_of_true_and_false_is_a_share():
    from vlm_jax.metrics.captions import score_captions
    from vlm_jax.scenes.rules import CaptionCheck
    from vlm_jax.tasks.caption import rule_scores

    named = score_captions(["a cat", "a dog"], [["a cat"], ["a dog"]]) | rule_scores([CaptionCheck(*[1] * 6, True)])
    plain = {"cider_d", "vocabulary", "mean_length", "attributes", "hallucinated", "relations"}
    assert {name for name in named if not is_share(name)} == plain


def test_numbers_are_spelled_with_their_digits():
    assert score(0.8324, "accuracy") == "83.2"
    assert score(0.0345, "accuracy", fine=True, signed=True) == "+3.45"
    assert score(-1e-9, "accuracy", fine=True, signed=True) == "+0.00"
    assert [score(value, "cider_d") for value in (0.8731, 0.00123, 31.416)] == ["0.873", "0.0012", "31.42"]
    assert score(None, "accuracy") == score(float("nan"), "cider_d") == MISSING
    assert [amount(value) for value in (2_410_000_000, 999, 0, None)] == ["2.41 G", "999", "0", MISSING]
    assert [duration(value) for value in (14.2, 522.0, 9000.0, None)] == ["14.2 s", "8.7 min", "2.5 h", MISSING]
    assert format_value([{"a": 1}, {"a": None}]) == "a 1; or a missing"
    assert mean_with_interval(Summary(3, 0.832, 0.01, 0.818, 0.846, 2.0), "accuracy") == "83.2 [81.8, 84.6]"
    assert mean_with_interval(Summary(1, 0.832, None, None, None, None), "accuracy") == "83.2 (one seed: no interval)"
    assert mean_with_interval(Summary(3, 0.832, 0.0, 0.832, 0.832, 2.0), "accuracy") == "83.2 (with every seed)"


@pytest.mark.parametrize(
    ("difference", "n", "base_n", "adjusted_p", "words"),
    [
        (0.1, 3, 3, 0.01, "higher"),
        (-0.1, 3, 3, 0.01, "lower"),
        (0.1, 3, 3, 0.2, "not distinguishable with 3 seeds"),
        (0.1, 2, 3, 0.2, "not distinguishable with 2 and 3 seeds"),
        (0.1, 1, 3, None, "one seed: no interval"),
        (0.1, 3, 3, None, "no spread between seeds: not tested"),
    ],
)
def test_verdicts(difference, n, base_n, adjusted_p, words):
    p = adjusted_p
    assert verdict(Difference(difference, n, base_n, p=p, adjusted_p=p)) == words


def test_the_text_reports_the_finding():
    text = markdown(report(CLEAR, unfinished=(("late,seed=3", "killed\nby hand"), ("late,seed=4", "not run yet"))))
    assert "- higher: cross (+10.00 points)" in text
    assert "- not distinguishable with 3 seeds: late (-1.00 points)" in text
    assert "| concat | 3 | 81.0 [78.5, 83.5] | 1.00 |" in text
    assert "| late,seed=3 | killed by hand |" in text
    assert "| commit | missing |" in text and "| versions | jax 0.8, numpy missing |" in text
    assert "| machine | missing |" in text
    assert "95 %" in text and "Welch" in text and "Holm" in text
    assert "    python -m experiments.ablate x.py" in text


def test_missing_values_are_marked(tmp_path):
    nothing = variant("never ran", [], planned=3, cost=Cost(None, None))
    study_report = report(table(variant("concat", [0.8, 0.81]), nothing), metadata={})
    text, html = markdown(study_report), page_of(study_report, tmp_path)
    assert "| never ran | 0 of 3 | missing | missing |" in text
    assert "| never ran | missing | missing | missing | missing | missing | missing | missing |" in text
    assert not re.search(r"\| *(nan|None|inf)? *\|", text)
    assert "level missing" in text and "<td></td>" not in html
    empty = markdown(report(table(nothing, variant("also not", [], planned=3)), finding="", commands=()))
    assert "No finding has been written down yet." in empty


def test_a_finding_is_of_all_runs(tmp_path):
    study_report = report(CLEAR, finding="Cross is better.")
    assert "As the study's file says of its authors' runs: Cross is better." in markdown(study_report)
    assert "Cross is better." in markdown(study_report) and "Cross is better." in page_of(study_report, tmp_path)
    partly = dataclasses.replace(study_report, unfinished=(("cross, seed 2", "not finished"),))
    for text in (markdown(partly), page_of(partly, tmp_path)):
        assert "Cross is better." not in text and "Runs are missing" in text


def test_runs_of_several_commits_and_machines_are_named():
    other = record(0.9)
    other.result["commit"], other.result["machine"] = "2222222", {"device": "a GPU"}
    text = markdown(report(table(variant("a", [0.8]), Row("b", [other], planned=1, cost=COST))))
    assert "Runs differ in commit: " in text and "2222222 (b 0)" in text
    assert "Runs differ in machine, so that speed, memory and time do not compare: " in text
    assert "Runs differ" not in markdown(report(CLEAR))


def test_what_variants_change_is_shown_and_which_metric_comes_first():
    changed = Row("wide", [record(0.9)], planned=1, cost=COST, changes=(("model.hidden_size", 64),))
    rows = (variant("a", [0.8]), changed)
    comparison = Findings("t", rows, base="x.py", match="steps", metrics=("accuracy", "loss"), common=(("seed", 3),))
    text = markdown(report(comparison))
    assert (
        "| wide | model.hidden_size=64 |" in text and "| a | nothing |" in text and "Of all variants: seed=3." in text
    )
    assert "- t: accuracy against a" in text and "- t: beside it, loss against a" in text


def generated_row(label, scores, *, evaluate_every=100, scored_alone=False, **generation):
    """A row of `scores` by seed, of images drawn with these settings."""
    training = TextTraining(steps=100, evaluate_every=evaluate_every)
    tokenizer = TrainedImageTokenizer(run=Path("tokenizer"))
    config = ImageGeneration(name=label, training=training, image_tokenizer=tokenizer)
    config = with_changes(config, {f"generation.{name}": value for name, value in generation.items()})
    records = [record(value, seed, config=config) for seed, value in scores.items()]
    for run_record in records:
        run_record.result["trained_as"] = "another" if scored_alone else None
    return Row(label, records, planned=3, cost=COST, changes=tuple(generation.items()))


def test_decoding_settings_of_a_shared_training_are_compared_by_seed():
    base = generated_row("12 steps", {0: 0.5, 1: 0.6, 2: 0.9})
    few = generated_row("4 steps", {2: 0.91, 1: 0.62}, num_decoding_steps=4, scored_alone=True)
    at_once = generated_row("whole", {0: 0.51, 1: 0.6, 2: 0.88}, cond_drop_prob=0.2)
    comparison = table(base, few, at_once)
    paired, unpaired = (comparison.differences["accuracy"][label] for label in ("4 steps", "whole"))
    assert paired.paired and not unpaired.paired and paired.n == 2
    assert paired.difference == pytest.approx(0.015), "of the seeds that both have, whatever their order"
    text = markdown(report(comparison))
    assert (
        "| 4 steps | num_decoding_steps=4; trained as another, scored alone |" in text
        and "| whole | cond_drop_prob=0.2 |" in text
    )
    (differing,) = [block for block in tables_of(text) if "test" in block[0]]
    assert "seed by seed" in differing[2] and "Welch's" in differing[3]
    (costs,) = [block for block in tables_of(text) if "wall time" in block[0]]
    assert costs[3].count("trained as another") == 2 and "61.0 s, to score" in costs[3] and "to score" not in costs[2]
    partly = generated_row("some", {0: 0.5, 1: 0.6}, num_decoding_steps=2)
    partly.records[0].result.update(trained_as="another", examples_per_second=None, wall_seconds=1.0)
    (costs,) = [block for block in tables_of(markdown(report(table(base, partly)))) if "wall time" in block[0]]
    assert costs[2].split("|")[2:] == costs[3].split("|")[2:], "of the runs that were trained"
    few.records[0].result["commit"] = "another"
    assert not table(base, few).differences["accuracy"]["4 steps"].paired
    chosen = [
        generated_row(label, {0: 0.5, 1: 0.6}, evaluate_every=50, num_decoding_steps=steps)
        for label, steps in (("a", 12), ("b", 4))
    ]
    assert not table(*chosen).differences["accuracy"]["b"].paired, "each chose its checkpoint"


def test_one_seed_has_no_interval():
    text = markdown(report(table(variant("concat", [0.8]), variant("cross", [0.9]))))
    assert "80.0 (one seed: no interval)" in text
    assert (
        "| cross | accuracy, % | +10.00 | one seed: no interval | missing | missing | missing | one seed: no interval |"
    ) in text
    assert "higher" not in text.split("## Methods")[0]


def test_permutation_p_needs_six_seeds():
    many = [0.80, 0.81, 0.82, 0.83, 0.84, 0.85]
    text = markdown(report(table(variant("a", many), variant("b", [value + 0.1 for value in many]))))
    assert "| permutation p | verdict |" in text
    assert "| permutation p |" not in markdown(report(CLEAR))


def test_matching_reports_its_choice():
    chosen = Row("cross", [], planned=1, cost=COST, chosen="layers 4 -> 3")
    text = markdown(report(table(variant("concat", [0.8]), chosen, match="flops")))
    assert "FLOPs of an optimizer step within 5 %" in text and "layers 4 -> 3 |" in text
    assert "matching changed" not in markdown(report(CLEAR))


def test_differing_settings_are_listed():
    longer = record(0.8)
    longer = longer._replace(config=with_changes(longer.config, {"training.steps": 7}))
    text = markdown(report(table(variant("a", [0.8]), Row("b", [longer], planned=1, cost=COST))))
    steps = record(0.8).config.training.steps
    assert f"Alike: data. Not alike: training.steps ({steps}, 7)." in text
    assert "Alike: optimizer steps and batches, data." in markdown(report(CLEAR))


def test_the_origin_of_weights_is_told():
    source = {"setting": "init.text", "source": "package:mini/model", "family": "bert", "sha256": "53aa51"}
    source |= {"taken": ["text"], "left_behind": ["head"], "changed": ["positions cut from 512 to 32"]}
    converted = record(0.8, weights={"sources": [source], "fresh": ["image"]})
    text = markdown(report(table(variant("fresh", [0.8]), Row("ported", [converted], planned=1, cost=COST))))
    assert "| fresh | nothing: everything freshly initialised |" in text
    for part in ("package:mini/model (bert): text; positions cut", "left behind: head", "initialised: image", "53aa51"):
        assert part in text


def test_every_row_of_a_table_has_as_many_columns(tmp_path):
    first, second = variant(NASTY, [0.8, 0.9]), variant("a\nb", [0.8, 0.9])
    examples = (Disagreement(b"", "a|b", ("|",), {NASTY: ("|", True), "a\nb": ("\\", False)}),)
    study_report = report(table(first, second), unfinished=((NASTY, NASTY),), disagreements={"Fusion": examples})
    blocks = tables_of(markdown(study_report))
    assert len(blocks) == 8
    for block in blocks:
        assert len({len(columns(line)) for line in block}) == 1, block
    assert "a b" in markdown(study_report)


def test_texts_are_no_markup(tmp_path):
    rows = variant(NASTY, [0.8, 0.9]), variant("[x](javascript:1)", [0.8, 0.9])
    examples = (Disagreement(b"png", NASTY, (NASTY,), {NASTY: (NASTY, None)}),)
    changes = {"question": NASTY, "finding": NASTY, "commands": (NASTY,), "metadata": {NASTY: NASTY, "level": 0.95}}
    study_report = report(
        table(*rows, title=NASTY), **changes, unfinished=((NASTY, NASTY),), disagreements={NASTY: examples}
    )
    html, text = page_of(study_report, tmp_path), markdown(study_report)
    assert "<script" not in html and "&lt;script&gt;" in html
    assert "](java" not in text
    outside_code = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)<script", outside_code)


def test_the_page_needs_nothing_else(tmp_path):
    examples = (Disagreement(b"png", "what?", ("yes",), {"concat": ("no", False), "cross": ("yes", True)}),)
    html = page_of(report(CLEAR, disagreements={"Fusion": examples}), tmp_path)
    sources = re.findall(r"""(?:src|href|srcset|action)\s*=\s*["']?([^"'\s>]+)""", html)
    assert len(sources) == len(plots(CLEAR)) + 1
    assert all(source.startswith("data:image/") for source in sources)
    assert "http" not in html.replace("http-equiv", "") and "url(" not in html and "@import" not in html
    assert "✓ yes" in html and "✗ no" in html
    assert {path.name for path in tmp_path.iterdir()} == {"report.html", "report.md"}


def test_the_same_results_give_the_same_bytes(tmp_path):
    first, again = (tmp_path / name for name in ("first", "again"))
    for folder in (first, again):
        folder.mkdir()
        write(report(CLEAR), folder)
    for name in ("report.md", "report.html"):
        assert (first / name).read_bytes() == (again / name).read_bytes()


def test_weights_that_all_have_are_told_once_and_controls_of_what_is_compared():
    text = markdown(report(CLEAR))
    (weights,) = [block for block in tables_of(text) if "started from" in block[0]]
    assert weights[2:] == ["| all | nothing: everything freshly initialised |"]

    def named(label, *baselines):
        run_record = record(0.8)
        run_record.result["metrics"] = {"accuracy": 0.8} | {f"baseline/{name}": 0.1 for name in baselines}
        return Row(label, [run_record], planned=1, cost=COST)

    for baselines, shown in (
        (("constant/accuracy", "constant/length", "majority"), ["constant/accuracy", "majority"]),
        (("constant/length", "nearest/length"), ["constant/length", "nearest/length"]),
    ):
        text = markdown(report(table(named("a", *baselines), named("b", *baselines))))
        (head,) = [block[0] for block in tables_of(text) if "constant/" in block[0]]
        assert [column.split(",")[0].strip() for column in columns(head)[1:]] == shown


def test_what_runs_were_warned_of_is_in_both_reports(tmp_path):
    """Each text once a variant, with the seeds of its runs."""
    warned = {0: ["no better than shuffled"], 1: ["no better than shuffled", f"odd {NASTY}"], 2: []}
    records = [record(0.8, seed) for seed in warned]
    records = [
        run_record._replace(result=run_record.result | {"warnings": warned[run_record.config.seed]})
        for run_record in records
    ]
    comparison = table(Row("a", records, planned=3, cost=COST), variant("b", [0.7, 0.8, 0.9]))
    (grid,) = [grid for grid in grids(comparison) if grid.title == "Warnings"]
    assert [columns[:2] for columns in grid.rows] == [("a", "0, 1"), ("a", "1")]
    text, page = markdown(report(comparison)), page_of(report(comparison), tmp_path)
    assert "no better than shuffled" in text and "no better than shuffled" in page and "<script>" not in page
    assert "Warnings" not in markdown(report(CLEAR))


def test_a_curve_of_one_point_is_none():
    assert curves(table(variant("a", [0.8], curve=((100, 0.4),)), variant("b", [0.8], curve=()))) is None


def test_curves_are_plotted_at_the_steps_that_all_seeds_have(monkeypatch):
    long, short = ((100, 0.2), (200, 0.4), (300, 0.6)), ((100, 0.3), (200, 0.5))
    records = [record(0.8, 0, curve=long), record(0.8, 1, curve=short), record(0.8, 2, curve=())]
    bands = []
    from matplotlib.axes import Axes

    monkeypatch.setattr(Axes, "fill_between", lambda self, *values, **style: bands.append(values))
    other = variant("longer", [0.8], curve=(*long, (400, 0.7)))
    assert "<svg" in curves(table(Row("uneven", records, planned=3, cost=COST), other)).svg
    (steps, low, high), (others, *_) = bands
    assert steps == [100, 200] and others == [100, 200, 300, 400]
    np.testing.assert_allclose(low, [20, 40])
    np.testing.assert_allclose(high, [30, 50])
    assert curves(table(variant("a", [0.8], curve=()), variant("b", [], planned=1))) is None


def test_plots_without_information_are_left_out():
    assert score_by_cost(CLEAR, "accuracy") is None  # all cost the same
    assert by_kind(CLEAR) is None  # no kinds
    assert effects(table(variant("a", [0.8]), variant("b", [], planned=1)), "accuracy") is None
    assert plots(table(variant("a", [], planned=1), variant("b", [], planned=1))) == ()


def test_no_spread_and_unusual_labels_are_plotted():
    kinds = [record(0.8, seed, yes_no=1.0, **{"日本": 0.0}) for seed in range(3)]
    labels = "_hidden 日本 $x_{$", "x" * 200
    costs = Cost(10, None), Cost(10_000, None)
    rows = [Row(label, kinds, planned=3, cost=cost) for label, cost in zip(labels, costs, strict=True)]
    assert len(plots(table(*rows))) == 4


def test_twelve_variants_have_different_styles():
    rows = [
        Row(f"widths={n}", [record(0.5 + n / 40 + s / 100, s, a=0.5) for s in range(2)], planned=2,
            cost=Cost(n + 1, 10 ** (6 + n // 4) + n))
        for n in range(12)
    ]  # fmt: skip
    assert len({style(number) for number in range(12)}) == 12
    plot = by_kind(table(*rows))
    assert all(colour.lower() in plot.svg for colour in PALETTE)
    assert score_by_cost(table(*rows), "accuracy") is not None


QUESTIONS = [(f"{n}-{kind}", f"{n}.png", kind) for n in range(6) for kind in ("colour", "shape")]


@pytest.fixture
def predicted(tmp_path):
    """Makes a run from the ids of the questions that it answers right."""
    for n in range(6):
        Image.new("RGB", (400, 200), (40 * n, 0, 0)).save(tmp_path / f"{n}.png")
    lines = [{"image": i, "question": f"which {k}?", "answers": ["red"], "question_id": q} for q, i, k in QUESTIONS]
    file = tmp_path / "all.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    splits = dict.fromkeys(("train", "validation", "test"), (file,))
    config = VQA(data=TableQuestions(images=tmp_path, directory=tmp_path / "cache", **splits))

    def make(label, right, seed=0):
        folder = tmp_path / f"{label}-{seed}"
        folder.mkdir()
        rows = [
            {"question_id": q, "image_id": i, "question": f"which {k}?", "kind": k, "answers": ["red", "red"]}
            | {"prediction": "red" if q in right else "blue", "score": float(q in right), "top": []}
            for q, i, k in QUESTIONS
        ]
        (folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
        return record(0.5, seed, folder=folder, config=config)

    return make


def compared(**records):
    return table(*(Row(label, group, planned=len(group), cost=COST) for label, group in records.items()))


def test_disagreements_are_those_of_the_first_shared_seed(predicted):
    names = {name for name, *_ in QUESTIONS}
    a = [predicted("a", names, 0), predicted("a", names - {"3-colour"}, 1)]
    examples = disagreements(compared(a=a, b=[predicted("b", names - {"0-shape"}, 1)]))
    assert {example.hypotheses["a"] for example in examples} == {("red", True), ("blue", False)}
    assert {(example.question, example.references) for example in examples} == {
        ("which shape?", ("red",)),
        ("which colour?", ("red",)),
    }
    assert len(examples) == 2 and all(example.hypotheses["a"][1] != example.hypotheses["b"][1] for example in examples)


def test_half_right_comes_first_then_kinds_in_turn(predicted, tmp_path):
    half = {name for name, _, kind in QUESTIONS if kind == "colour"} | {"0-shape"}
    every = {name for name, *_ in QUESTIONS}
    records = {"a": [predicted("a", every)], "b": [predicted("b", every)], "c": [predicted("c", every - half)]}
    records["d"] = [predicted("d", set())]  # three of four right about the other shapes
    examples = disagreements(compared(**records), most=8)
    assert len(examples) == 8
    assert [sum(right for _, right in example.hypotheses.values()) for example in examples] == [2] * 7 + [3]
    assert {example.question for example in examples[:2]} == {"which colour?", "which shape?"}
    assert examples == disagreements(compared(**records))
    with Image.open(io.BytesIO(examples[0].image)) as thumbnail:
        assert thumbnail.size == (160, 80) and thumbnail.format == "PNG"


@pytest.mark.parametrize("damage", ["missing", "cut", "image"])
def test_what_cannot_be_read_gives_no_examples(predicted, damage, tmp_path):
    a, b = predicted("a", {"0-shape"}), predicted("b", set())
    file = b.folder / "predictions.jsonl"
    assert len(disagreements(compared(a=[a], b=[b]))) == 1
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-30])
    else:
        (tmp_path / "0.png").write_bytes(b"not an image")
    assert disagreements(compared(a=[a], b=[b])) == ()


def test_captions_and_tasks_that_generate_images(predicted, tmp_path):
    a, b = predicted("a", set()), predicted("b", set())
    file = tmp_path / "captions.jsonl"
    file.write_text("\n".join(json.dumps({"image": f"{n}.png", "captions": ["a thing"]}) for n in range(2)))
    splits = dict.fromkeys(("train", "validation", "test"), (file,))
    data = TableCaptions(images=tmp_path, directory=tmp_path / "cache", **splits)
    generation = ImageGeneration(image_tokenizer=TrainedImageTokenizer(run=Path("tokenizer")))
    rows = [{"image_id": f"{n}.png", "references": ["a thing"]} for n in range(2)]
    for run_record, words in ((a, ("one", "same")), (b, ("two", "same"))):
        lines = [line | {"captions": [{"caption": word}]} for line, word in zip(rows, words, strict=True)]
        (run_record.folder / "predictions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    captioning, drawing = (
        compared(**{
            name: [run_record._replace(config=task)]
            for name, run_record in (("a", a), ("b", b))
        })
        for task in (Captioning(data=data), generation)
    )  # fmt: skip
    (example,) = disagreements(captioning)
    assert example.question == "" and example.hypotheses == {"a": ("one", None), "b": ("two", None)}
    assert disagreements(drawing) == ()
