"""Studies: lists of variants, their names, and what is refused before anything runs."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.weights import own
from vlm_jax.ablation.costs import matched
from vlm_jax.ablation.study import (
    Comparison,
    Study,
    chain,
    grid,
    load_study,
    resolve,
    runs,
    seeded,
    study_file,
    variant,
    vary,
)
from vlm_jax.config.tasks import TASKS
from vlm_jax.errors import InputError
from vlm_jax.settings.changes import from_json, with_changes
from vlm_jax.settings.presets import load_preset

ROOT = Path(__file__).parent.parent.parent
GONE = {"init.kind": "parts", "init.text": "gone"}
FUSIONS = {"model.fusion.kind": ["cross", "late"]}
TINY = "../tiny.py"


def labels(variants):
    return [entry.label for entry in variants]


@pytest.fixture
def configs(tmp_path, pytestconfig, data_directory):
    """A folder as `configs` is, with a place for studies."""
    folder = tmp_path / "configs"
    (folder / "ablations").mkdir(parents=True)
    preset = (pytestconfig.rootpath / "configs" / "tiny.py").read_text(encoding="utf-8")
    assert preset.count("EasyVQA(") == 1
    placed = preset.replace("EasyVQA(", f"EasyVQA(directory=Path({str(data_directory)!r}), ")
    (folder / "tiny.py").write_text(placed.replace("from vlm_jax", "from pathlib import Path\nfrom vlm_jax", 1))
    return folder


def tables(configs, *, seeds=(0,), finished=(), **comparison):
    settings = {"title": "one", "base": TINY, "variants": vary(FUSIONS), **comparison}
    return resolve(
        Study("?", (Comparison(**settings),), seeds),
        configs / "ablations" / "study.py",
        lambda config: config in finished,
    )


def test_vary_changes_one_setting_at_a_time():
    variants = vary({"model.num_layers": [1, 3], "model.fusion.kind": ["late"]})
    assert labels(variants) == ["base", "num_layers=1", "num_layers=3", "fusion=late"]


def test_grid_has_every_combination():
    variants = grid({"model.num_layers": [1, 3], "model.image.widths": [(8, 16), (16, 32)]})
    assert labels(variants) == [f"num_layers={n}, widths={w}" for n in (1, 3) for w in ("8x16", "16x32")]


def test_chain_has_each_variant_once_in_order():
    named = variant({"model.num_layers": 1, "model.num_attention_heads": 1}, name="small")
    variants = chain(vary(FUSIONS), named, vary({"model.fusion.kind": ["late"], "model.num_layers": [4]}))
    assert labels(variants) == ["base", "fusion=cross", "fusion=late", "small", "num_layers=4"]


def test_common_settings_and_overrides_are_changed_together(configs):
    (table,) = tables(
        configs,
        common={"model.image.kind": "resnet"},
        variants=chain(vary({}), variant({"model.image.depth": 18}, name="small")),
    )
    assert [entry.config.model.image.depth for entry in table.variants] == [50, 18]
    for setting, value, parts in (
        ("model.image.depth", 18, ("model.image.kind=resnet", "small")),
        ("model.num_layers", "two", ("model.num_layers", "'two'")),
    ):
        with pytest.raises(InputError) as error:
            tables(configs, variants=vary({setting: [value]}))
        assert all(part in str(error.value) for part in parts)


def test_a_run_is_named_by_overrides_seed_and_config(configs):
    (table,) = tables(configs)
    names = [run.name for run in runs([table], (0, 1))]
    assert [name.rpartition("-")[0] for name in names] == [
        f"fusion={fusion},seed={seed}" for seed in (0, 1) for fusion in ("concat", "cross", "late")
    ]
    (other,) = tables(configs, common={"training.steps": 41})
    assert not set(names) & {run.name for run in runs([other], (0, 1))}, "another config, the same folder"


def test_fusions_get_their_own_pattern_and_head(configs):
    (table,) = tables(configs)
    assert [entry.config.architecture.attention_pattern for entry in table.variants] == [
        "image_to_text",
        "image_to_text",
        "dual_encoder",
    ]


def test_comparisons_share_a_run_that_both_have(configs):
    both = [*tables(configs), *tables(configs, title="flops", match="flops")]
    unique = runs(both, (0,))
    assert len(unique) == len({run.config for run in unique}) < 6
    for table in both:
        assert {seeded(entry, 0).config for entry in table.variants} <= {run.config for run in unique}


def test_a_wild_name_is_a_plain_folder(configs):
    (table,) = tables(
        configs, variants=chain(vary({}), variant({"model.num_layers": 1}, name="../../a b/<x>" + "y" * 300))
    )
    name = seeded(table.variants[1], 0).name
    assert "/" not in name and " " not in name and not name.startswith(".") and len(name) < 110


@pytest.mark.parametrize(
    ("comparison", "message"),
    [
        ({"variants": vary({"model.fusion.kind": ["crss"]})}, r"one, fusion=crss: .*'crss'.* concat, cross"),
        ({"variants": vary({"model.num_attention_heads": [5]})}, "one, num_attention_heads=5: "),
        ({"base": "../tinny.py"}, r"tinny.py.*did you mean '.*tiny.py'\?"),
        ({"match": "flops", "variants": vary({"model.hidden_size": [512]})}, "no depth and feed-forward width"),
        (
            {
                "variants": vary({"model.layout.max_image_positions": [9]}),
                "common": {"model.layout.kind": "custom"},
            },
            "max_image_positions=9: the image grid has 16 grid positions",
        ),
        (
            {"variants": chain(vary({}), variant({"init.kind": "parts", "init.image": "weights/none"}))},
            "weights/none",
        ),
        ({"variants": vary({"model.text.tokenizer": ["words/none"]})}, "tokenizer=words/none: "),
        ({"metrics": ("accuracy/yes_no", "acuracy")}, r"has no score 'acuracy'; choose one of: .*accuracy"),
        ({"metrics": ("accuracy/yes_on",)}, r"no test question is of the kind of .*; choose one of: .*yes_no"),
        ({"variants": vary({"model.fusion.kind": ["concat"]})}, "two variants are called 'fusion=concat'"),
        (
            {"variants": chain(vary({}), variant({"model.fusion.attention_pattern": "image_to_text"}, name="x"))},
            "'attention_pattern=image_to_text' and 'x' are the same config",
        ),
    ],
)
def test_what_cannot_work_is_refused_before_anything_runs(configs, comparison, message):
    with pytest.raises(InputError, match=message):
        tables(configs, **comparison)


def test_weights_that_do_not_fit_are_refused_before_anything_runs(configs, tmp_path):
    source = own.write(tmp_path / "bert")
    with pytest.raises(InputError, match=r"one, ported: init\.text .* needs --model\."):
        tables(
            configs, variants=chain(vary({}), variant({"init.kind": "parts", "init.text": str(source)}, name="ported"))
        )


def test_what_finished_runs_started_from_may_be_gone(configs):
    comparison = {"variants": chain(vary({}), variant(GONE, name="ported"))}
    with pytest.raises(InputError, match="ported: no weights at 'gone'"):
        tables(configs, **comparison)
    config = load_preset(configs / "tiny.py", TASKS)
    finished = {with_changes(config, GONE | {"seed": seed}) for seed in (0, 1)}
    with pytest.raises(InputError, match="ported: no weights at 'gone'"):
        tables(configs, **comparison, finished=finished, seeds=(0, 1, 2))
    (table,) = tables(configs, **comparison, finished=finished, seeds=(1, 0))
    assert [entry.label for entry in table.variants] == ["base", "ported"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "defines no get_study"),
        ("get_study = dict", "expected Study"),
        (
            "from vlm_jax.ablation.study import *\nget_study = lambda: Study('?', (Comparison('a', 'b', vary({})),))",
            "two variants or more",
        ),
        ("from vlm_jax.ablation.study import *\nget_study = lambda: Study('?', (Comparison(titel='a'),))", "'title'?"),
        ("def get_study(: pass", "study.py, line 1: invalid syntax"),
        (
            "from vlm_jax.ablation.study import *\n"
            "get_study = lambda: Study('?', (Comparison('a', 'b', vary({'s': [1]}))))",
            "comparisons must be a tuple of Comparison",
        ),
        (
            "from vlm_jax.ablation.study import *\n"
            "get_study = lambda: Study('?', (Comparison('a', 'b', vary({'s': [1]}), metrics=('accuracy')),))",
            "metrics must be a tuple",
        ),
        (
            "from vlm_jax.ablation.study import *\n"
            "get_study = lambda: Study('?', (Comparison('a', 'b', vary({'s': [1]}), match='flop'),))",
            "choose one of: ",
        ),
        (
            "from vlm_jax.ablation.study import *\n"
            "get_study = lambda: Study('?', (Comparison('a', 'b', vary({'s': [1]})),), seeds=(1, 1))",
            "none twice",
        ),
    ],
)
def test_a_study_that_is_none_is_named(tmp_path, text, message):
    """In a process of its own: here, the type checks of the tests would speak first."""
    (tmp_path / "study.py").write_text(text, encoding="utf-8")
    load = f"load_study(Path({str(tmp_path / 'study.py')!r}))"
    code = f"from pathlib import Path\nfrom vlm_jax.ablation.study import load_study\n{load}"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stderr.splitlines()[-1].startswith("vlm_jax.errors.InputError: ") and message in answer.stderr


def test_a_missing_study_names_the_nearest(configs):
    (configs / "ablations" / "fusion.py").write_text("")
    with pytest.raises(InputError, match=r"did you mean '.*fusion.py'\?"):
        study_file(configs / "ablations" / "fuson.py")
    with pytest.raises(InputError, match=r"no study 'fuson'; did you mean 'fusion'\?"):
        study_file(Path("fuson"))
    assert study_file(Path("fusion")).name == "fusion.py"


def test_every_study_that_ships_resolves(pytestconfig, monkeypatch):
    """With answers counted beforehand, so that no data set is prepared; sources that a study starts from are not."""
    monkeypatch.setattr("vlm_jax.tasks.vqa._count_answers", lambda data: 13)
    files = sorted((pytestconfig.rootpath / "configs" / "ablations").glob("[!_]*.py"))
    assert files
    for file in files:
        study = load_study(file)
        for comparison in study.comparisons:
            base = load_preset(file.parent / comparison.base, TASKS)
            overrides = [{**comparison.common, **dict(entry.overrides)} for entry in comparison.variants]
            configs = [with_changes(base, changes) for changes in overrides]
            if comparison.match != "steps":
                for config in configs[1:]:
                    matched(config, configs[0], comparison.match)


@pytest.mark.parametrize("setting", ["model.fusoin.kind", "modle.fusion.kind", "fusion.kind"])
def test_a_typing_mistake_in_the_only_varied_setting_is_named(configs, setting):
    with pytest.raises(InputError, match=setting):
        tables(configs, variants=vary({setting: ["cross", "late"]}))


RECORDS = sorted((ROOT / "docs" / "studies").glob("*.tar.xz"))


@pytest.mark.parametrize("path", RECORDS, ids=lambda path: path.stem)
def test_the_records_of_studies_have_the_settings_of_today(path):
    """Unpacked they count as finished runs: a setting that is new must be added to them."""
    with tarfile.open(path) as archive:
        configs = [archive.extractfile(entry).read() for entry in archive if entry.name.endswith("/config.json")]
    assert configs
    for config in configs:
        from_json(config.decode(), TASKS)
