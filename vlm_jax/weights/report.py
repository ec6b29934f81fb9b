"""What a port is, on one page: `port_report.md`."""

from vlm_jax.trees import flatten
from vlm_jax.weights.converted_model import ConvertedModel


def port_report(converted: ConvertedModel) -> str:
    """Source, settings and the table of names, as Markdown."""
    architecture, origin, leaves = converted.architecture, converted.origin, flatten(converted.params)
    lines = [
        f"# Port of {origin.source}",
        "",
        f"- family: {converted.family.name}",
        *(f"- {line}" for line in converted.class_lines),
        f"- sha256: {origin.sha256}",
        f"- revision: {origin.revision or 'none: local files'}",
        f"- parameters: {converted.parameter_count:,}",
    ]
    model = architecture.model
    if architecture.is_image_encoder:
        lines += [f"- network: {model.name}, {architecture.classes} classes", f"- images: {architecture.input}"]
    elif architecture.is_image_text:
        lines += [f"- {model}", f"- images: {architecture.input}"]
    else:
        lines += [
            f"- {model.num_layers} layers, width {model.hidden_size}, {model.num_attention_heads} heads, feed-forward "
            f"{model.intermediate_size}, {model.hidden_act}, layer norm epsilon {model.layer_norm_eps:g}",
            f"- heads of its own: {', '.join(architecture.parts) or 'none'}",
        ]
    lines += [f"- {line}" for line in converted.changes.lines()]
    lines += ["", "| source | converted | shape |", "|---|---|---|"]
    for row in converted.family.rows(architecture):
        lines += [f"| {', '.join(row.source)} | {path} | {list(leaves[path].shape)} |" for path in row.target]
    if count := len(converted.source_tensors):
        lines += ["", f"{count} tensors of theirs are kept beside the parameters, so that an export returns them."]
    return "\n".join(lines) + "\n"
