"""The claims of stage 01 (report section 2), measured on the student and on SmolLM2.

stage.verdict(verdict.rows(own, real, plan, metrics["loss_change"]))
"""

from katlab.lab import Claim
from katlab.layer_saturation.plan import LayerPlan
from katlab.layer_saturation.study import VARIANTS, Study

NEAR_IDENTITY, RANKED, KEPT = 0.95, 0.9, 0.05  # cosine; Spearman; nats. Ours: the report has none


def rows(own: Study, real: Study, plan: LayerPlan, loss_change: float) -> list[Claim]:
    """`own` and `real` are the studies of the student and of real weights, `plan` the student's.

    `loss_change` is that of the written child against its parent, in nats.
    """
    near = float((real.layers["similarity"] > NEAR_IDENTITY).mean())
    rank = real.layers["influence"].rank().corr(real.layers["skip"].rank())
    copied = {
        s.name: s.starts.set_index("variant")["loss_change"][VARIANTS[0][0]] for s in (own, real)
    }
    once = len(plan.duplicated) == plan.parent_layers // 4
    depth = f"{plan.parent_layers} -> {plan.child_layers}"
    start = f"{loss_change:+.3f}, by {plan.start}"
    identity = f"A fourth of the layers is near identity (cosine > 0.95, {real.name})"
    ranks = f"Similarity ranks the damage ({real.name}, Spearman > 0.9)"
    keep = "Copies keep the loss ({}, 0.05 nats)"
    return [
        Claim(identity, "about 0.25", near, 0.15 <= near <= 0.35, "report"),
        Claim(ranks, "assumed", rank, rank > RANKED, "report"),
        *(
            Claim(keep.format(who), "implied", copied[s.name], copied[s.name] < KEPT, "report")
            for who, s in ((real.name, real), ("student", own))
        ),
        Claim(
            "The student's start keeps the loss", "not stated", start, loss_change < KEPT, "target"
        ),
        Claim("A quarter of the layers is added, once each", "64 -> 80", depth, once, "check"),
    ]
