"""Data flows one way: lower ranks never import higher ones, and importing the package costs nothing."""

import ast
import re
import subprocess
import sys
from collections import Counter
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted((ROOT / "vlm_jax").rglob("*.py"))

# Each row may import the rows above it, and its own package. The table stands in docs/architecture.md too.
RANKS = (
    ("allocator", "compilation_cache", "errors", "interrupts", "invocation", "text_lines", "types"),
    ("failures", "files", "metrics", "trees", "packages", "placement", "scenes", "settings"),
    ("integrity",),
    ("data",),
    ("config",),
    ("cache_contents", "identity"),
    ("command_line", "run_folder", "figures"),
    ("models", "run_claim"),
    ("decoding", "weights"),
    ("tasks",),
    ("training",),
    ("ablation", "inference"),
    ("__main__",),
)
RANK = {name: rank for rank, names in enumerate(RANKS) for name in names} | {"__init__": len(RANKS)}


def name_of(path):
    return path.relative_to(ROOT / "vlm_jax").parts[0].removesuffix(".py")


def imports(path):
    """Every module that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            yield node.module
            if node.module == "vlm_jax":
                yield from (f"vlm_jax.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_lower_ranks_only(path):
    own_rank = name_of(path)
    for module in imports(path):
        package, *rest = module.split(".")
        assert package not in ("experiments", "configs", "tests")
        if package == "vlm_jax" and rest and rest[0] != own_rank:
            assert RANK[rest[0]] < RANK[own_rank], f"{own_rank} imports {module}"


def module_name(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_at_top(path):
    """Every module that a file needs when it is imported, be it as a name of its package."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in [*tree.body, *(inner for block in tree.body if isinstance(block, ast.If) for inner in block.body)]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def cycle(graph):
    """Modules that import each other, in order; empty where there are none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_module_imports_itself_over_others():
    """Inside packages too, and for types alone."""
    modules = {module_name(path): path for path in FILES}
    graph = {name: set(imports_at_top(path)) & set(modules) - {name} for name, path in modules.items()}
    assert cycle(graph) == []
    leaf, user = "vlm_jax.decoding.trie", "vlm_jax.decoding.decoder"
    assert leaf in graph[user] and set(cycle(graph | {leaf: {*graph[leaf], user}})) >= {leaf, user}


def line_enders(path):
    """Where a file's text is taken apart into lines otherwise than by `vlm_jax.text_lines`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    opened = {
        item.optional_vars.id
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for item in node.items
        if isinstance(item.optional_vars, ast.Name) and re.search(r"\bopen\(", ast.unparse(item.context_expr))
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in ("splitlines", "readlines"):
            yield f"{path}:{node.lineno} {node.attr}"
        if isinstance(node, (ast.For, ast.comprehension)) and getattr(node.iter, "id", None) in opened:
            yield f"{path} iterates over {node.iter.id}"


def test_lines_are_taken_apart_in_one_place(tmp_path):
    """`str.splitlines` ends lines where no file does."""
    files = [*FILES, *(path for name in ("experiments", "configs") for path in (ROOT / name).rglob("*.py"))]
    lines = [line for path in files if path.name != "text_lines.py" for line in line_enders(path)]
    assert lines == []
    planted = tmp_path / "planted.py"
    for code in ("a.splitlines()", "f.readlines()", "with open(p) as f:\n  for x in f: pass",
                 "with p.open() as f:\n  [x for x in f]"):  # fmt: skip
        planted.write_text(code)
        assert len(list(line_enders(planted))) == 1, code


def test_every_module_has_a_rank():
    assert {name_of(path) for path in FILES} == set(RANK)


TORCH = ("oracles.py", "pickles.py", "tiny_models.py", "torch_cnns.py", "torch_training.py")


def test_each_heavy_library_has_its_place():
    for path in FILES:
        used = {module.split(".")[0] for module in imports(path)}
        assert "tensorflow" not in used, path
        assert "torch" not in used or path.name in TORCH or path.name.endswith("_oracle.py"), path
        assert "flax" not in used or name_of(path) == "models", path
        reads_environment = "os.environ" in path.read_text(encoding="utf-8")
        assert reads_environment == (path.parts[-2:] == ("training", "devices.py")), f"{path} reads the environment"


def test_the_table_of_ranks_is_documented():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [
        line.split("|")[2]
        for line in text.splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    ]
    listed = [tuple(name.strip(" `/") for name in row.split(",")) for row in rows]
    assert tuple(listed[: len(RANKS)]) == RANKS


def test_the_top_level_holds_nothing_else():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    if not tracked:
        pytest.skip("no git checkout")
    folders = {"vlm_jax", "experiments", "configs", "tests", "docs", ".ci"}
    files = {"README.md", "setup.py", "pyproject.toml", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", ".gitignore"}
    files |= {"CITATION.cff", "constraints.txt"}
    assert {line.split("/")[0] for line in tracked.splitlines()} <= folders | files


def test_files_of_tests_have_names_of_their_own():
    """pytest imports a file by its bare name where its folder is no package: of two alike, one is not collected."""
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


HEAVY = ("transformers", "tensorflow", "tensorflow_datasets", "matplotlib", "torch", "grain")


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("vlm_jax.training.loop", HEAVY),
        ("vlm_jax.tasks", HEAVY),
        ("experiments.train", (*HEAVY, "jax", "numpy", "PIL")),  # what every start and --help import
        ("vlm_jax.config.tasks", (*HEAVY, "jax", "numpy", "PIL")),
    ],
)
def test_an_import_brings_nothing_heavy(module, heavy):
    code = f"import sys, {module}; print([name for name in {heavy} if name in sys.modules])"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert answer.stdout == "[]\n", answer.stderr
