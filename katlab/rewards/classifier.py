"""A small classifier of answers for the general category, as the report's section 4.2.2 names it.

Two forms, told apart by the path: a JSON file made by `fit` (logistic regression on words and word
pairs, no further package), or the folder of a Hugging Face sequence classifier (score: probability
of its last label).
Usage: `fit(["yes, in cup C", "no idea"], [1, 0], "clf.json"); score("in cup C", "clf.json")`
"""

from __future__ import annotations

import json
import re
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np


class Missing(Exception):
    """The classifier, or the package that runs it, is not here."""


def features(text: str) -> Counter[str]:
    """Counts of the words and adjacent word pairs of a text's first 20,000 characters."""
    words = re.findall(r"\w+", text[:20_000].casefold())
    return Counter(words) + Counter(f"{a} {b}" for a, b in zip(words, words[1:], strict=False))


def fit(
    texts: list[str], labels: list[int], path: str | Path, steps: int = 300, decay: float = 1e-2
) -> float:
    """Fits by gradient descent on the mean logistic loss, writes the JSON file, gives accuracy."""
    vocabulary = sorted({word for text in texts for word in features(text)})
    index = {word: i for i, word in enumerate(vocabulary)}
    x = np.zeros((len(texts), len(vocabulary)))  # (texts, words), 0/1
    for row, text in enumerate(texts):
        x[row, [index[word] for word in features(text)]] = 1.0
    y, w, bias = np.asarray(labels, dtype=float), np.zeros(len(vocabulary)), 0.0
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(x @ w + bias))) - y  # (texts,)
        w -= 0.5 * (x.T @ error / len(y) + decay * w)
        bias -= 0.5 * error.mean()
    table = {"bias": float(bias), "weights": dict(zip(vocabulary, w.tolist(), strict=True))}
    Path(path).write_text(json.dumps(table), encoding="utf-8")
    return float((((x @ w + bias) > 0) == (y > 0.5)).mean())


def score(text: str, path: str | Path) -> float:
    """Probability that the answer is good. Raises Missing when the classifier cannot be used."""
    kind, model = _load(str(path))
    if kind == "words":
        logit = model["bias"] + sum(model["weights"].get(word, 0.0) for word in features(text))
        return float(1 / (1 + np.exp(-np.clip(logit, -50, 50))))
    import torch

    tokenizer, network = model
    inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=512)
    with torch.no_grad():
        logits = network(**inputs).logits[0].float()  # (labels,)
    odds = torch.sigmoid(logits) if len(logits) == 1 else torch.softmax(logits, dim=-1)
    return float(odds[-1])


@lru_cache(maxsize=4)
def _load(path: str) -> tuple[str, Any]:
    if Path(path).is_file():
        return "words", json.loads(Path(path).read_text(encoding="utf-8"))
    if not Path(path).is_dir():
        raise Missing(f"no classifier at {path}: fit one with katlab.rewards.classifier.fit")
    try:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer
    except ImportError as error:
        raise Missing("transformers is not installed: pip install transformers torch") from error
    network = AutoModelForSequenceClassification.from_pretrained(path).eval()
    return "network", (AutoTokenizer.from_pretrained(path), network)
