"""Files that are not what they seem: none passes, each message names what came and what is possible.

The cases are the table of wrong files in docs/weights.md, row by row.
"""

import importlib.util
import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from experiments import port
from tests.weights import fixtures, own
from vlm_jax.errors import InputError
from vlm_jax.weights.families import CLASSES, FAMILIES
from vlm_jax.weights.import_folder import read

DOCS = Path(__file__).parent.parent.parent / "docs" / "weights.md"
needs_oracle = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is the oracle")


class Wrong(NamedTuple):
    """A row of the table."""

    file: str
    case: str
    """The fixture that it is made of."""
    settings: dict
    """What its config.json says otherwise; None leaves a setting out, NULL writes null."""
    message_parts: tuple[str, ...] = ()
    """Parts of the message, or of what `verify` prints."""
    codes: tuple[int, int] = (2, 2)
    """Exit codes of `import` and `verify`."""
    lacks: tuple[str, ...] = ()
    """Beginnings of tensors that it does not have."""


NULL = object()
CLASSLESS = {"architectures": None, "model_type": None}
FAMILY_NAMES = ("bert, roberta, distilbert, visual_bert",)
TWO = ["BertForMaskedLM", "BertModel"]
HEAD = ("cls.predictions.bias", "cls.predictions.transform.dense.weight")
WRONG = (
    Wrong("`model_type` lxmert", "bert", {"model_type": "lxmert", "architectures": None}, ("'lxmert'", *FAMILY_NAMES)),
    Wrong(
        "`model_type` deberta", "bert", {"model_type": "deberta", "architectures": None}, ("'deberta'", *FAMILY_NAMES)
    ),
    Wrong("`model_type` xlnet", "bert", {"model_type": "xlnet", "architectures": None}, ("'xlnet'", *FAMILY_NAMES)),
    Wrong(
        "`model_type` roberta, `architectures` BertModel",
        "bert",
        {"model_type": "roberta"},
        ("'roberta'", "BertModel", "'bert'"),
    ),
    Wrong(
        "`architectures` DebertaModel",
        "bert",
        {"model_type": None, "architectures": ["DebertaModel"]},
        ("'DebertaModel'", "BertModel, BertForMaskedLM"),
    ),
    Wrong(
        "`architectures` of two classes",
        "bert",
        {"architectures": TWO},
        ("['BertForMaskedLM', 'BertModel']", "--architecture"),
    ),
    Wrong(
        "`auto_map`: the class is code of its own",
        "bert",
        {"auto_map": {"AutoModel": "mine.BertModel"}},
        ("auto_map", "mine.BertModel"),
    ),
    Wrong(
        "RoBERTa without `model_type` and `architectures`",
        "roberta",
        CLASSLESS,
        ("--architecture", "BertModel, RobertaModel"),
    ),
    Wrong("RoBERTa's masked words without both", "roberta_masked", CLASSLESS, ("--architecture", "RobertaForMaskedLM")),
    Wrong("BERT's masked words without both", "bert_masked", CLASSLESS, ("--architecture", "BertForMaskedLM")),
    Wrong(
        "VisualBERT with a linear head, without `architectures`",
        "visual_bert_answers",
        {"architectures": None},
        ("VisualBertForQuestionAnswering, VisualBertForVisualReasoning",),
    ),
    Wrong(
        "timm's resnetblur50",
        "torchvision_resnet18",
        {"architecture": "resnetblur50"},
        ("'resnetblur50'", "resnet18, resnet34, resnet50, resnet101"),
    ),
    Wrong(
        "timm's resnet50d",
        "torchvision_resnet18",
        {"architecture": "resnet50d.ra2_in1k"},
        ("'resnet50d'", "resnet50"),
    ),
    Wrong(
        "timm's resnet18 with `model_args`",
        "torchvision_resnet18",
        {"model_args": {"aa_layer": "blurpool"}},
        ("model_args", "blurpool"),
    ),
    Wrong(
        "timm's resnet18 with `global_pool` max",
        "torchvision_resnet18",
        {"global_pool": "max"},
        ("global_pool = 'max'", "'avg'"),
    ),
    Wrong(
        "`architecture` resnet50, the tensors of resnet18",
        "torchvision_resnet18",
        {"architecture": "resnet50"},
        ("'resnet50'", "'resnet18'"),
    ),
    Wrong(
        "ResNet under torchvision's names, without config.json",
        "torchvision_resnet18",
        {"architecture": None},
        ("--architecture", "choose one of: resnet18"),
    ),
    Wrong(
        "ResNet with the `depths` of another",
        "resnet18",
        {"depths": [3, 4, 6, 3]},
        ("depths = [3, 4, 6, 3]", "a resnet18: [2, 2, 2, 2]"),
    ),
    Wrong(
        "ResNet with another `layer_type`",
        "resnet18",
        {"layer_type": "bottleneck"},
        ("layer_type = 'bottleneck'", "a resnet18: 'basic'"),
    ),
    Wrong(
        "`num_labels` is not that of the head",
        "visual_bert_answers",
        {"id2label": None, "num_labels": 2},
        ("num_labels = 2", "5 classes"),
    ),
    Wrong(
        "`id2label` left out, so that the class has two",
        "visual_bert_answers",
        {"id2label": None},
        ("has in another shape cls.bias, cls.weight", "FAIL"),
        (0, 1),
    ),
    Wrong(
        "`tie_word_embeddings` null, which the class does not load",
        "bert_masked",
        {"tie_word_embeddings": NULL},
        ("BertForMaskedLM: cannot load the file", "FAIL"),
        (0, 1),
    ),
    Wrong(
        "`quantization_config`",
        "bert",
        {"quantization_config": {"load_in_8bit": True}},
        ("quantization_config = {'load_in_8bit': True}",),
    ),
    Wrong("ResNet with `hidden_act` gelu", "resnet18", {"hidden_act": "gelu"}, ("hidden_act = 'gelu'", "'relu'")),
    Wrong(
        "`hidden_act` gelu_fast",
        "bert",
        {"hidden_act": "gelu_fast"},
        ("'gelu_fast'", "choose one of: gelu, gelu_new, relu"),
    ),
    Wrong(
        "`position_embedding_type` absolut",
        "bert",
        {"position_embedding_type": "absolut"},
        ("'absolut'", "choose one of: absolute"),
    ),
    Wrong(
        "a tensor of the trunk is missing",
        "bert",
        {},
        ("missing encoder.layer.1.output.dense.bias",),
        lacks=("encoder.layer.1.output.dense.bias",),
    ),
    Wrong(
        "VisualBertForVisualReasoning",
        "visual_bert_answers",
        {"architectures": ["VisualBertForVisualReasoning"]},
        (
            "VisualBertForVisualReasoning (config.json architectures)",
            "NOT COMPARED: its head",
            "left behind: cls.bias, cls.weight",
            "compared with transformers' VisualBertForVisualReasoning",
        ),
        (0, 3),
    ),
    Wrong(
        "BertForMaskedLM without its head",
        "bert_masked",
        {},
        (*HEAD, "ported as BertModel", "compared with transformers' BertForMaskedLM", "NOT COMPARED: masked words"),
        (0, 3),
        lacks=("cls.",),
    ),
    Wrong(
        "BertForMaskedLM with half of its head",
        "bert_masked",
        {},
        ("missing tensors of BertForMaskedLM cls.predictions.bias", "NOT COMPARED: masked words"),
        (0, 3),
        lacks=("cls.predictions.bias",),
    ),
    Wrong(
        "`tie_word_embeddings` false, and no decoder",
        "bert_masked",
        {"tie_word_embeddings": False},
        ("missing tensors of BertForMaskedLM cls.predictions.decoder.weight", "NOT COMPARED: masked words"),
        (0, 3),
    ),
    Wrong(
        "BertForPreTraining without `cls.seq_relationship`",
        "bert_pretraining",
        {},
        ("cls.seq_relationship.weight", "NOT COMPARED: masked words, sentence pairs"),
        (0, 3),
        lacks=("cls.seq_relationship",),
    ),
    Wrong(
        "BertModel without its pooler",
        "bert_no_pooler",
        {},
        ("pooler.dense.bias, pooler.dense.weight", "NOT COMPARED: pooled"),
        (0, 3),
    ),
    Wrong(
        "ResNetForImageClassification without its classifier",
        "resnet18",
        {},
        ("classifier.1.weight", "NOT COMPARED: logits"),
        (0, 3),
        lacks=("classifier.1",),
    ),
)


def write(wrong, folder):
    """The file, as somebody would publish it."""
    fixture = fixtures.BY_NAME[wrong.case].fixtures[-1]
    tensors = {name: x for name, x in fixtures.tensors(fixture).items() if not wrong.lacks or not lacking(name, wrong)}
    settings = fixtures.config(fixture.case) | wrong.settings
    settings = {name: None if x is NULL else x for name, x in settings.items() if x is not None}
    return fixtures.write(folder, tensors, settings)


def lacking(name, wrong):
    return name.removeprefix("bert.").removeprefix("resnet.").startswith(wrong.lacks)


def outcome(arguments, capsys):
    """The exit code of a command and all that it says."""
    capsys.readouterr()
    try:
        code = port.main(arguments)
    except InputError as error:  # what `run_command` prints, before it exits with 2
        assert "\n" not in str(error)
        return 2, str(error)
    return code, capsys.readouterr().out


@needs_oracle
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.file)
def test_a_wrong_file_never_passes(wrong, tmp_path, capsys):
    folder = write(wrong, tmp_path / "file")
    code, output = outcome(["verify", str(folder)], capsys)
    assert code == wrong.codes[1], output
    assert "PASS" not in output and "did you mean" not in output
    squeezed = re.sub(r"  +", " ", output)
    for words in wrong.message_parts:
        assert re.sub(r"  +", " ", words) in squeezed, output
    code, output = outcome(["import", str(folder), "--output", str(tmp_path / "port")], capsys)
    assert code == wrong.codes[0] and (tmp_path / "port").exists() == (code == 0), output


def test_the_table_of_wrong_files_is_documented():
    """Each case is a row with its exit codes, and none of them passes."""
    text = DOCS.read_text(encoding="utf-8").split("## Wrong files")[1].split("\n## ")[0]
    rows = [
        [column.strip() for column in line.strip("|").split(" | ")] for line in text.splitlines() if line[:2] == "| "
    ]
    rows = {row[0].strip("| "): row for row in rows[1:]}
    assert list(rows) == [wrong.file for wrong in WRONG] and "PASS" not in "".join(map(str, rows.values()))
    for wrong in WRONG:
        assert [int(code.strip("| ")) for code in rows[wrong.file][2:]] == list(wrong.codes), wrong.file


# What the messages say to do


@pytest.mark.parametrize(
    ("case", "settings", "right"),
    [
        ("roberta", CLASSLESS, "RobertaModel"),
        ("roberta_masked", CLASSLESS, "RobertaForMaskedLM"),
        ("bert_masked", CLASSLESS, "BertForMaskedLM"),
        ("visual_bert_answers", {"architectures": None}, "VisualBertForQuestionAnswering"),
        ("torchvision_resnet18", {"architecture": None}, "resnet18"),
    ],
)
def test_the_command_of_a_refusal_works(case, settings, right, tmp_path, capsys):
    """The class that it asks for is given, and the folder it writes is read without a question."""
    folder = write(Wrong("", case, settings), tmp_path / "file")
    _, message = outcome(["import", str(folder), "--output", str(tmp_path / "port")], capsys)
    command = message.split("vlm_jax port ")[1].split("`")[0].split()
    command = [{"CLASS": right, "FOLDER": str(tmp_path / "port")}.get(word, word) for word in command]
    assert right in message.rpartition("choose one of: ")[2].split(", ")
    code, output = outcome(command, capsys)
    assert code == 0 and f"class: {right} (--architecture)" in output
    converted = read(str(tmp_path / "port"))
    assert converted.family is CLASSES[right] and converted.published.name == right
    assert (tmp_path / "port" / "port_report.md").read_text().count(f"class: {right} (--architecture)") == 1


def test_the_option_chooses_among_two_classes(tmp_path, capsys):
    folder = write(Wrong("", "bert_masked", {"architectures": TWO}), tmp_path / "file")
    assert read(str(folder), class_name="BertForMaskedLM").architecture.parts == ("words",)


def test_a_larger_class_takes_what_was_left_behind(tmp_path, capsys):
    """As the published bert-base-uncased, which names BertForMaskedLM and holds all of BertForPreTraining."""
    settings = {"architectures": ["BertForMaskedLM"]}
    folder = write(Wrong("", "bert_pretraining", settings), tmp_path / "file")
    code, output = outcome(["import", str(folder), "--output", str(tmp_path / "port")], capsys)
    assert code == 0 and "left behind: cls.seq_relationship.bias, cls.seq_relationship.weight, pooler.dense" in output
    assert read(str(folder)).architecture.parts == ("words",)
    (line,) = (line for line in output.splitlines() if line.startswith("to take them as well: "))
    option, larger = line.split(": ")[1].split()
    assert larger == "BertForPreTraining"
    code, output = outcome(["import", str(folder), "--output", str(tmp_path / "larger"), option, larger], capsys)
    assert code == 0 and "left behind" not in output
    assert read(str(tmp_path / "larger")).architecture.parts == ("pooler", "words", "pairs")


def test_no_larger_class_is_named_where_several_have_such_heads(tmp_path, capsys):
    """The head may be VisualReasoning's, and its port as QuestionAnswering would be another model."""
    folder = write(Wrong("", "visual_bert_answers", {"architectures": ["VisualBertModel"]}), tmp_path / "file")
    code, output = outcome(["import", str(folder), "--output", str(tmp_path / "port")], capsys)
    assert code == 0 and "left behind: cls.bias, cls.weight" in output and "QuestionAnswering" not in output
    assert "--architecture" not in output


@needs_oracle
def test_a_larger_class_is_compared_whole(tmp_path, capsys):
    settings = {"architectures": ["BertForMaskedLM"]}
    folder = write(Wrong("", "bert_pretraining", settings), tmp_path / "file")
    code, output = outcome(["verify", str(folder)], capsys)
    assert code == 0 and output.endswith("PASS\n") and "BertForMaskedLM (config.json architectures)" in output
    code, output = outcome(["verify", str(folder), "--architecture", "BertForPreTraining"], capsys)
    assert code == 0 and "sentence pairs" in output and "transformers' BertForPreTraining" in output


@pytest.mark.parametrize(
    ("case", "settings", "class_option", "message_parts"),
    [
        ("roberta", {}, "BertModel", ("BertModel", "'roberta'", "choose one of: RobertaModel")),
        ("bert", {}, "BertMdel", ("'BertMdel'", "choose one of: BertModel")),
        ("bert", {"architectures": None}, "RobertaModel", ("RobertaModel", "'bert'")),
        (
            "visual_bert_answers", {"architectures": ["VisualBertForVisualReasoning"]},
            "VisualBertForQuestionAnswering", ("VisualBertForVisualReasoning", "VisualBertModel"),
        ),
    ],
)  # fmt: skip
def test_the_option_does_not_overrule_the_file(case, settings, class_option, message_parts, tmp_path, capsys):
    folder = write(Wrong("", case, settings), tmp_path / "file")
    command = ["import", str(folder), "--output", str(tmp_path / "port"), "--architecture", class_option]
    code, message = outcome(command, capsys)
    assert code == 2 and not (tmp_path / "port").exists()
    for words in message_parts:
        assert words in message, message


# Classes that are known without being named


@pytest.mark.parametrize(
    ("case", "evidence"),
    [
        ("bert_pretraining", "the names of the tensors"),
        ("distilbert", "the names of the tensors"),
        ("distilbert_masked_untied", "the names of the tensors"),
        ("visual_bert", "the names of the tensors"),
        ("visual_bert_pretraining", "the names of the tensors"),
    ],
)
def test_names_that_no_other_class_has_are_enough(case, evidence, tmp_path):
    fixture = fixtures.BY_NAME[case].fixtures[-1]
    converted = read(str(write(Wrong("", case, CLASSLESS), tmp_path / "file")))
    assert (converted.published.name, converted.published.evidence) == (
        fixtures.transformers_class(fixture.case),
        evidence,
    )


@pytest.mark.parametrize("case", ["bert", "bert_no_pooler", "roberta_masked_untied", "visual_bert", "resnet18"])
def test_the_model_type_and_names_are_enough(case, tmp_path):
    fixture = fixtures.BY_NAME[case].fixtures[-1]
    converted = read(str(write(Wrong("", case, {"architectures": None}), tmp_path / "file")))
    assert converted.published.name == fixtures.transformers_class(fixture.case)
    assert converted.published.evidence == "config.json model_type and the names of the tensors"


def test_names_without_the_prefix_are_not_enough(tmp_path, capsys):
    """ERNIE's masked words have the names of BERT's but for the prefix."""
    fixture = fixtures.BY_NAME["bert_masked"].fixtures[-1]
    tensors = {name.removeprefix("bert."): x for name, x in fixtures.tensors(fixture).items()}
    settings = {name: x for name, x in fixtures.config(fixture.case).items() if name not in CLASSLESS}
    folder = fixtures.write(tmp_path / "file", tensors, settings)
    code, message = outcome(["verify", str(folder)], capsys)
    assert code == 2 and "--architecture" in message and "BertForMaskedLM" in message


HEADED = [name for name, family in CLASSES.items() if family.classes[name].left and family.name in fixtures.BY_NAME]


@pytest.mark.parametrize("name", HEADED)
def test_the_trunk_of_a_class_with_another_head_is_converted(name, tmp_path):
    """Its head is left behind by name."""
    family = CLASSES[name]
    known = family.classes[name]
    case = fixtures.BY_NAME[family.name if "pooler" in known.parts or family.name != "bert" else "bert_no_pooler"]
    trunk = {
        n: x for n, x in fixtures.tensors(case.fixtures[-1]).items() if "pooler" in known.parts or "pooler" not in n
    }
    heads = {f"{beginning}weight": np.ones((3, fixtures.WIDTH), np.float32) for beginning in known.left}
    tensors = {f"{family.prefix}.{n}": x for n, x in trunk.items()} | heads
    settings = fixtures.config(case) | {"architectures": [name]}
    converted = read(str(fixtures.write(tmp_path / "file", tensors, settings)))
    assert converted.published.left_behind == tuple(sorted(heads)) and converted.published.missing == ()
    assert (
        converted.architecture.parts == known.parts
        and converted.family.class_of(converted.architecture) == family.trunk
    )


def test_every_class_of_ours_is_one_of_transformers():
    transformers = pytest.importorskip("transformers", reason="transformers is the oracle")
    names = [name for family in FAMILIES.values() if family.in_transformers for name in family.classes]
    assert len(names) == len(set(names)) >= 28 and all(hasattr(transformers, name) for name in names)


def test_a_config_of_another_tool_names_no_class(tmp_path, capsys):
    folder = own.write(tmp_path / "file")
    (folder / "config.json").write_text(json.dumps({"format": "mine"}))
    code, message = outcome(["verify", str(folder)], capsys)
    assert code == 2 and "choose one of: BertModel, RobertaModel" in message
