"""Stage 08: what the target takes, by arithmetic and by shape (report sections 2 and 8).

figures = stage.run(stage)
"""

from katlab.lab import StageRun, work
from katlab.scaling_plan import planner

TARGET = "target-40b"


@work
def run(stage: StageRun) -> dict[str, float]:
    """Build the target's student on the meta device and count it; writes scaling.csv, depths.csv.

    Returns parameters, layers, query and key-value heads, and 1 where embeddings are untied.
    """
    parent, child = planner.architecture(TARGET)
    model = planner.instantiate(child)
    planner.rows().to_csv(stage.dir / "scaling.csv")
    depths = stage.progress(range(64, 97, 4), "students by depth")
    planner.by_depth(parent, depths, stage.settings).to_csv(stage.dir / "depths.csv", index=False)
    untied = model.get_output_embeddings().weight is not model.get_input_embeddings().weight
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "layers": model.config.num_hidden_layers,
        "query_heads": model.config.num_attention_heads,
        "key_value_heads": model.config.num_key_value_heads,
        "untied": int(untied),
    }
