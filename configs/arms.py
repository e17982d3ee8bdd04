"""The arms of configs/full.py: the same protocol under one changed condition each, for how far its verdicts reach.

Command: python main.py --config=configs/arms.py:ARM, with an ARM of the list below, into runs/arms_ARM; then
         python main.py --mode=report --workdir=runs/full --arms=runs/arms_tokens4,runs/arms_d_k
Time:    tokens4 four times, tokens2 twice, logit_scales almost four times that of configs/full.py; the others about as
         much for as many cells.
Expect:  a sentence for each arm under the verdicts of C1 and C2; `beat` instead of `learn faster` where tokens4 agrees.
"""

from configs import full

ARMS = {
    "tokens2": {"train.steps": 4_000},
    "tokens4": {"train.steps": 8_000},
    # 334 GFLOP/s over 13.25 G exp/s, the limits that benchmarks.attention printed on two cores of an Intel Xeon, is 25
    # FLOPs an exp; d_k = 1 cannot meet the budget.
    "flops": {"grid.match": "flops", "grid.flops_per_exp": 25.0, "grid.num_heads": (1, 4, 16)},
    # Bhojanapalli et al. 2020: heads of one width, and one number of heads, the budget kept by d_ff.
    "heads": {"grid.num_heads": (1, 4, 8), "grid.d_k": (16,)},
    "d_k": {"grid.num_heads": (4,), "grid.d_k": (1, 4, 16)},
    # Liu et al. 2021: few layers of many heads, many layers of one head.
    "depth": {"grid.num_heads": (1, 8), "grid.num_layers": (1, 2, 4)},
    # The steelman: every cell at the best of four scales of its logits.
    "logit_scales": {"grid.logit_scales": ("sqrt", "inverse", "learned", "qk_norm")},
}


def get_config(arm: str = ""):
    if arm not in ARMS:
        raise ValueError(f"name an arm, --config=configs/arms.py:ARM with {', '.join(ARMS)}, not {arm!r}")
    config = full.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(ARMS[arm])
    return config
