"""Names behind a prefix, task heads and adapters: each refusal names the option, and the option works."""

import json
import re
import shlex

import numpy as np
import pytest

from experiments import port
from tests.weights import fixtures, own
from tests.weights.test_goldens import scores
from vlm_jax.errors import InputError
from vlm_jax.trees import flatten
from vlm_jax.weights.checks import verdict
from vlm_jax.weights.export import export
from vlm_jax.weights.import_folder import read, read_import
from vlm_jax.weights.source import open_source
from vlm_jax.weights.tensor_names import ANCHORS, renamed
from vlm_jax.weights.verify import verify

PREFIXES = {  # what stands before BertModel's names, and what of it is in the way
    "module.bert.": "module.", "model.": "model.", "model.bert.": "model.", "0.auto_model.": "0.auto_model.",
    "bert.bert.": "bert.", "encoder.": "encoder.", "_orig_mod.module.": "_orig_mod.module.",
    "roberta.bert.": "roberta.", "bert._orig_mod.": "bert._orig_mod.",
}  # fmt: skip


def refusal(source, **options):
    with pytest.raises(InputError) as caught:
        read(str(source), **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def options_of(line):
    """The options that a message tells the user to give, as the command line has them."""
    words = shlex.split(re.search(r"(--(?:strip-prefix|drop-tensors) .*?) \(port", line).group(1))
    pairs = list(zip(words[::2], words[1::2], strict=True))
    return {name.removeprefix("--").replace("-", "_"): value for name, value in pairs}


def same_numbers(converted, plain):
    leaves, plain_leaves = flatten(converted.params), flatten(plain.params)
    return leaves.keys() == plain_leaves.keys() and all(
        np.array_equal(leaves[path], plain_leaves[path]) for path in leaves
    )


@pytest.fixture
def plain(tmp_path):
    return read(str(own.write(tmp_path / "plain")))


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_is_named_and_taken_off(prefix, plain, tmp_path):
    expected = PREFIXES[prefix]
    folder = own.write(tmp_path / "behind", {f"{prefix}{name}": x for name, x in own.tensors().items()})
    line = refusal(folder)
    options = options_of(line)
    assert options == {"strip_prefix": expected} and repr(expected) in line
    converted = read(str(folder), **options)
    assert same_numbers(converted, plain)
    count = len(own.tensors())
    assert (
        converted.changes.strip_prefix == expected
        and converted.changes.stripped == count
        and not converted.changes.warnings
    )


@pytest.mark.parametrize("name", ["torchvision_resnet18", "mobilenet_v2", "efficientnet_lite0", "resnet18"])
def test_a_cnn_behind_a_prefix(name, tmp_path):
    fixture = fixtures.BY_NAME[name].fixtures[0]
    tensors = {f"module.{name}": x for name, x in fixtures.tensors(fixture).items()}
    folder = fixtures.write(tmp_path / "behind", tensors, fixtures.config(fixture.case))
    options = options_of(refusal(folder))
    assert options == {"strip_prefix": "module."}
    assert max(scores(read(str(folder), **options), fixture).values()) <= 1


def test_every_family_has_one_anchor():
    for case in fixtures.CASES:
        names = fixtures.tensors(case.fixtures[0])
        assert sum(name.endswith(anchor) for name in names for anchor in ANCHORS) == 1, case.name


HEADS = {
    "one": {"scorer.weight": (3, 16), "scorer.bias": (3,)},
    "beside_known": {"classifier.other.weight": (2, 16), "classifier.other.bias": (2,)},
    "two": {"classifier.dense.weight": (16, 16), "classifier.out_proj.bias": (3,), "loss.weight": (3,), "scale": ()},
    "known_place": {"cls.other.weight": (3, 16)},
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("prefix", ["", "bert."])
def test_a_task_head_is_named_and_dropped(head, prefix, plain, tmp_path):
    weights = {f"{prefix}{name}": x for name, x in own.tensors().items()}
    weights |= {name: np.ones(shape, np.float32) for name, shape in HEADS[head].items()}
    folder = own.write(tmp_path / "head", weights, architectures=["BertModel"])
    line = refusal(folder)
    for name in HEADS[head]:
        assert name.split(".")[0] in line
    options = options_of(line)
    assert options.keys() == {"drop_tensors"}
    converted = read(str(folder), **options)
    assert same_numbers(converted, plain)
    assert set(converted.changes.dropped) == set(HEADS[head]) and not converted.changes.warnings
    assert "architectures" not in converted.config


def test_both_options_and_the_records(plain, tmp_path, capsys):
    """The command, its folder, the report, and the export of what is left; the way on from a message that needs one."""
    weights = {f"model.bert.{name}": x for name, x in own.tensors().items()}
    weights |= {"model.scorer.weight": np.ones((3, 16), np.float32), "criterion.weight": np.ones(3, np.float32)}
    folder = own.write(tmp_path / "lightning", weights)
    first = options_of(refusal(folder))
    assert first == {"strip_prefix": "model."}
    second = options_of(refusal(folder, **first))
    options = first | second
    arguments = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert port.main(["import", str(folder), "--output", str(tmp_path / "out"), *arguments]) == 0
    printed = capsys.readouterr().out
    report = (tmp_path / "out" / "port_report.md").read_text(encoding="utf-8")
    about = json.loads((tmp_path / "out" / "port.json").read_text(encoding="utf-8"))
    count = len(own.tensors()) + 1
    assert about["changes"]["strip_prefix"] == "model." and about["changes"]["stripped"] == count
    assert set(about["changes"]["dropped"]) == {"scorer.weight", "criterion.weight"}
    for text in (printed, report):
        assert f"prefix model. stripped from {count} names" in text
        assert "scorer.weight" in text and "criterion.weight" in text
    again = read_import(tmp_path / "out")
    assert same_numbers(again, plain) and again.changes == read(str(folder), **options).changes
    assert "is the folder of an import" in refusal(tmp_path / "out", **options)
    export(again, tmp_path / "exported")
    assert same_numbers(read(str(tmp_path / "exported")), plain)
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["architectures"] == ["BertModel"]


# Adapters


def with_adapter(weights, layer="encoder.layer.0.attention.self.query", start="base_model.model.bert."):
    """What peft saves of a model whose adapter was not merged."""
    renamed_layer = {f"{layer}.{leaf}": f"{layer}.base_layer.{leaf}" for leaf in ("weight", "bias")}
    wrapped = {f"{start}{renamed_layer.get(name, name)}": x for name, x in weights.items()}
    return wrapped | {
        f"{start}{layer}.lora_A.default.weight": np.ones((2, 16), np.float32),
        f"{start}{layer}.lora_B.default.weight": np.ones((16, 2), np.float32),
        "base_model.model.classifier.original_module.weight": np.ones((3, 16), np.float32),
        "base_model.model.classifier.modules_to_save.default.weight": np.ones((3, 16), np.float32),
    }


def test_an_adapter_is_to_be_merged_or_dropped_with_a_warning(plain, tmp_path):
    folder = own.write(tmp_path / "lora", with_adapter(own.tensors()))
    line = refusal(folder)
    assert "merge_and_unload" in line and "lora_" in line
    first = options_of(line)
    assert first.keys() == {"drop_tensors"}
    second = options_of(refusal(folder, **first))
    assert second == {"strip_prefix": "base_model.model."}
    converted = read(str(folder), **first, **second)
    assert same_numbers(converted, plain)
    assert len(converted.changes.dropped) == 4 and len(converted.changes.warnings) == 1
    assert "adapter" in converted.changes.warnings[0]
    assert any(line.startswith("warning: ") for line in converted.changes.lines())


def test_an_adapter_alone_is_not_told_to_be_dropped(tmp_path):
    """Without the weights below it nothing would be left."""
    weights = with_adapter(own.tensors())
    folder = own.write(tmp_path / "lora", {name: x for name, x in weights.items() if "lora_" in name})
    line = refusal(folder)
    assert "merge_and_unload" in line and "--drop-tensors" not in line


def test_messages_that_drop_one_after_the_other_are_followed(plain, tmp_path, capsys):
    """An adapter and a head of ones own: each message adds an option to those before."""
    weights = with_adapter(own.tensors()) | {"base_model.model.rank.weight": np.ones((3, 16), np.float32)}
    folder = own.write(tmp_path / "lora", weights)
    arguments, out = ["--architecture", "BertModel"], tmp_path / "out"
    for _ in range(3):
        with pytest.raises(InputError) as caught:
            port.main(["import", str(folder), "--output", str(out), *arguments])
        arguments += [word for name, value in options_of(str(caught.value)).items()
                  for word in (f"--{name.replace('_', '-')}", value)]  # fmt: skip
    assert arguments.count("--drop-tensors") == 2
    assert port.main(["import", str(folder), "--output", str(out), *arguments]) == 0
    assert same_numbers(read_import(out), plain)
    assert "rank.weight" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["lora_A.weight", "lora_magnitude_vector.a", "ia3_l.default", "hada_w1_a.a"])
def test_kinds_of_adapters(name, plain, tmp_path):
    """Older ones stand beside a layer that has kept its name."""
    weights = own.tensors() | {f"encoder.layer.1.output.dense.{name}": np.ones((2, 16), np.float32)}
    folder = own.write(tmp_path / "adapter", weights)
    converted = read(str(folder), **options_of(refusal(folder)))
    assert same_numbers(converted, plain) and converted.changes.warnings


def test_a_part_of_the_trunk_is_dropped_by_ones_own_choice_only(plain, tmp_path):
    extra = "encoder.layer.0.attention.self.distance_embedding.weight"
    folder = own.write(tmp_path / "relative", own.tensors() | {extra: np.ones((39, 8), np.float32)})
    line = refusal(folder)
    assert extra in line and "--drop-tensors" not in line
    converted = read(str(folder), drop_tensors=r".*distance_embedding.*")
    assert same_numbers(converted, plain) and "inside the trunk" in converted.changes.warnings[0]


def test_two_models_in_one_file(plain, tmp_path):
    other = {f"ema.bert.{name}": x + 1 for name, x in own.tensors().items()}
    folder = own.write(tmp_path / "two", {f"bert.{name}": x for name, x in own.tensors().items()} | other)
    converted = read(str(folder), **options_of(refusal(folder)))
    assert same_numbers(converted, plain) and len(converted.changes.dropped) == len(other)
    both = {f"{side}.{name}": x for side in ("question", "context") for name, x in own.tensors().items()}
    folder = own.write(tmp_path / "encoders", both)
    options = options_of(refusal(folder))
    assert options["strip_prefix"] in ("question.", "context.")
    assert same_numbers(read(str(folder), **options), plain)


# Options that do nothing


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"strip_prefix": "model."}, "no tensor of"),
        ({"drop_tensors": "classifier"}, "no tensor of"),
        ({"drop_tensors": "pooler"}, "no tensor of"),  # a whole name is asked for
        ({"drop_tensors": "("}, "no regular expression"),
        ({"drop_tensors": ".*"}, "every tensor"),
    ],
)
def test_an_option_that_does_not_fit(options, word, tmp_path):
    assert word in refusal(own.write(tmp_path / "bert"), **options)


def test_a_prefix_that_makes_two_names_one(tmp_path):
    name = "embeddings.LayerNorm.weight"
    folder = own.write(tmp_path / "bert", own.tensors() | {f"a.{name}": np.ones(16, np.float32)})
    assert name in refusal(folder, strip_prefix="a.")


def test_without_options_nothing_is_changed(tmp_path):
    source = open_source(str(own.write(tmp_path / "bert")))
    same = renamed(source)
    assert list(same.tensors) == list(source.tensors) and same.config == source.config and not same.changes.lines()


@pytest.mark.parity
def test_what_is_left_is_verified(tmp_path, capsys):
    """The reference is the published model without the same tensors, in the types of the file."""
    pytest.importorskip("torch", reason="torch is the oracle")
    fixture = fixtures.BY_NAME["bert_pretraining"].fixtures[-1]
    tensors = {f"module.{name}": x.astype(np.float16) for name, x in fixtures.tensors(fixture).items()}
    tensors["module.classifier.weight"] = np.ones((3, 32), np.float32)
    folder = fixtures.write(tmp_path / "behind", tensors, fixtures.config(fixture.case))
    options = {"strip_prefix": "module.", "drop_tensors": r"classifier\..*"}
    checks = list(verify(str(folder), **options))
    assert verdict(checks) == ("PASS", 0) and "sentence pairs" in [check.name for check in checks]
    assert [check.status for check in checks if check.name == "tensor names"] == ["note", "note"]
    arguments = ["--strip-prefix", "module.", "--drop-tensors", r"classifier\..*"]
    assert port.main(["verify", str(folder), *arguments]) == 0
    assert "prefix module. stripped" in capsys.readouterr().out


def test_what_an_adapter_learned_is_not_compared(tmp_path):
    """A port without it is not the published model."""
    adapter = {"encoder.layer.0.attention.self.query.lora_A.default.weight": np.ones((2, 16), np.float32)}
    folder = own.write(tmp_path / "adapter", own.tensors() | adapter)
    (line, code) = verdict(verify(str(folder), **options_of(refusal(folder))))
    assert code == 3 and line.startswith("NOT COMPARED: ") and "tensor names" in line
