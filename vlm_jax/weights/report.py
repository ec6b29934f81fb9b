"""What a port is, on one page: `port_report.md`."""

from vlm_jax.config.encoders import PublishedCNN
from vlm_jax.trees import flatten
from vlm_jax.weights.class_detection import OPTION, Published
from vlm_jax.weights.family import ConvertedArchitecture
from vlm_jax.weights.source import Changes
from vlm_jax.weights.tables import Row


def class_lines(published: Published, exported_class: str) -> list[str]:
    """The class of a file and by what it is known, what of it is missing, what is left behind."""
    lines = [f"class: {published.name} ({published.evidence})"]
    if published.missing:
        lines.append(f"missing tensors of {published.name}: {', '.join(published.missing)}")
    if published.left_behind:
        lines.append(f"left behind: {', '.join(published.left_behind)}")
    if published.larger:
        lines.append(f"to take them as well: {OPTION} {' or '.join(published.larger)}")
    if exported_class != published.name:
        lines.append(f"ported as: {exported_class}")
    return lines


def port_report(
    family: str,
    architecture: ConvertedArchitecture,
    rows: list[Row],
    params: dict,
    origin: dict,
    source_tensors: list[str],
    class_of: list[str],
    changes: Changes,
) -> str:
    """Source, settings and the table of names, as Markdown; `class_of` are the lines about the class."""
    leaves = flatten(params)
    lines = [
        f"# Port of {origin['source']}",
        "",
        f"- family: {family}",
        *(f"- {line}" for line in class_of),
        f"- sha256: {origin['sha256']}",
        f"- revision: {origin['revision'] or 'none: local files'}",
        f"- parameters: {sum(leaves[path].size for row in rows for path in row.target):,}",
    ]
    if isinstance(architecture.model, PublishedCNN):
        image = architecture.input
        lines += [f"- network: {architecture.model.name}, {architecture.classes} classes", f"- images: {image}"]
    else:
        model = architecture.model
        lines += [
            f"- {model.num_layers} layers, width {model.hidden_size}, {model.num_attention_heads} heads, feed-forward "
            f"{model.intermediate_size}, "
            f"{model.hidden_act}, layer norm epsilon {model.layer_norm_eps:g}",
            f"- heads of its own: {', '.join(architecture.parts) or 'none'}",
        ]
    lines += [f"- {line}" for line in changes.lines()]
    lines += ["", "| source | converted | shape |", "|---|---|---|"]
    for row in rows:
        lines += [f"| {', '.join(row.source)} | {path} | {list(leaves[path].shape)} |" for path in row.target]
    if source_tensors:
        lines += [
            "",
            f"{len(source_tensors)} tensors of theirs are kept beside the parameters, so that an export returns them.",
        ]
    return "\n".join(lines) + "\n"
