"""Is every relation learnable alone, and none of them without attention? Two layers on one relation at a time.

Command: python main.py --config=configs/relations_sanity.py:dose, and ...:kinds, the relations of families P and K
Time:    TIME
Expect:  a row a run in results/dose.csv (columns names, stage, loss, shortcut, query_alone), read in
         docs/results/sanity.md: with attention at most .02 nats a bit above its floor, far below the best shortcut,
         with attention off ln 2 = .693, where the best rule is that sees the query alone. Family K has two wide heads:
         with eight of width 8 induction takes 10,000 steps and more.
"""

from configs import default

SEEDS = {"dose": tuple(range(6)), "kinds": tuple(range(7))}  # each its own row of the square: a relation alone


def get_config(family: str = ""):
    if family not in SEEDS:
        raise ValueError(
            f"name a family, --config=configs/relations_sanity.py:FAMILY with {', '.join(SEEDS)}, not {family!r}"
        )
    kinds = family == "kinds"
    config = default.get_config()
    config.grid.d_model = (64,)
    config.grid.num_heads = (2,) if kinds else (8,)
    config.grid.learning_rates = (0.002,) if kinds else (0.003,)
    config.grid.tuning_seeds, config.grid.extensions = (), 0
    config.grid.init_seeds = SEEDS[family]
    config.model.num_layers = 2
    config.data.source = "relations"
    config.data.relations = "A,B,C,D,E,F,G" if kinds else "1"
    config.dose.relations = (1,)
    config.dose.threshold = 0.02
    config.dose.starts = ("no_attention",)
    config.train.steps = 5_000 if kinds else 4_000  # the cap
    config.train.batch_size = 32
    config.train.schedule = "cosine" if kinds else "constant"
    config.train.weight_decay = 0.01
    return config
