"""What a port is, on one page: `port_report.md`."""

from vlm_jax.config import ImageEncoder
from vlm_jax.trees import flatten
from vlm_jax.weights.family import Architecture
from vlm_jax.weights.source import Changes
from vlm_jax.weights.tables import Row


def port_report(
    family: str,
    architecture: Architecture,
    rows: list[Row],
    params: dict,
    origin: dict,
    kept: list[str],
    changes: Changes,
) -> str:
    """Source, settings and the table of names, as Markdown."""
    leaves = flatten(params)
    lines = [
        f"# Port of {origin['source']}",
        "",
        f"- family: {family}",
        f"- sha256: {origin['sha256']}",
        f"- revision: {origin['revision'] or 'none: local files'}",
        f"- parameters: {sum(leaves[path].size for row in rows for path in row.ours):,}",
    ]
    if isinstance(architecture.model, ImageEncoder):
        image = architecture.input
        lines += [f"- network: {architecture.model.cnn}, {architecture.classes} classes", f"- pictures: {image}"]
    else:
        model = architecture.model
        lines += [
            f"- {model.layers} layers, width {model.width}, {model.heads} heads, feed-forward {model.mlp_width}, "
            f"{model.activation}, layer norm epsilon {model.norm_epsilon:g}",
            f"- heads of its own: {', '.join(architecture.parts) or 'none'}",
        ]
    lines += [f"- {line}" for line in changes.lines()]
    lines += ["", "| theirs | ours | shape |", "|---|---|---|"]
    for row in rows:
        lines += [f"| {', '.join(row.theirs)} | {path} | {list(leaves[path].shape)} |" for path in row.ours]
    if kept:
        lines += ["", f"{len(kept)} tensors of theirs are kept beside the parameters, so that an export returns them."]
    return "\n".join(lines) + "\n"
