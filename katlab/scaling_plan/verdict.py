"""The rows of stage 08: arithmetic checks of the 40B's architecture (report sections 2 and 8).

stage.verdict(verdict.rows(counted))
"""

from katlab.lab import Claim


def rows(counted: dict[str, float]) -> list[Claim]:
    """`counted` is what `stage.run` returns; a check that fails is a wrong configuration."""
    layers, billions = counted["layers"], counted["parameters"] / 1e9
    heads = f"{counted['query_heads']}/{counted['key_value_heads']}"
    untied = bool(counted["untied"])
    right = round(billions, 2) == 40.57
    return [
        Claim("40B balances scale and compute (peak MFU)", "up to 0.50", "–", None, "report"),
        Claim("Layers after upscaling", 80, layers, layers == 80, "check"),
        Claim("Parameters, billions", "40B (40.57)", f"{billions:.2f}", right, "check"),
        Claim("Query and key-value heads", "40/8", heads, heads == "40/8", "check"),
        Claim("Embeddings", "untied", "untied" if untied else "tied", untied, "check"),
    ]
