"""Depth of roles, against the order that was written beforehand."""

import pandas as pd

from eval.heads.composition import depth


def test_layers_are_means_by_effect_and_pairs_are_counted():
    rows = [
        ("previous token", 0, 0.9),
        ("duplicate", 1, 0.2),
        ("duplicate", 3, 0.6),
        ("induction", 2, 0.5),
        ("rare", 0, 1.0),
    ]
    layers = depth.mean_layers(pd.DataFrame(rows, columns=["role", "layer", "effect"]))
    assert layers.round(9).to_dict() == {"previous token": 0, "duplicate": 2.5, "induction": 2}
    assert depth.in_order(layers) == (2, 3)  # duplicate stands above induction
    assert depth.in_order(layers[["induction"]]) == (0, 0)
