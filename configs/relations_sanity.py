"""Is every relation learnable alone, and none of them without attention? Two layers on one relation at a time.

Command: python main.py --config=configs/relations_sanity.py:dose, ...:kinds and ...:induction: family P, family K
         without induction, and induction, for which a head must read what another one wrote.
Time:    3, 8 and 5 minutes on 2 cores of an AMD EPYC.
Expect:  a row a run in results/dose.csv (columns names, stage, loss, shortcut, query_alone), read in
         docs/results/sanity.md: with attention at most .02 nats a bit above its floor, far below the best shortcut;
         with attention off not below ln 2 = .693, where the best rule is that sees the query alone. Induction is learnt
         all at once, and by few seeds within the cap: the second of its two is not among them.
"""

from configs import default

# Of each: relations, seeds (each its own row of the square), heads, rate, schedule, the most steps.
FAMILIES = {
    "dose": ("6", tuple(range(6)), 8, 0.003, "constant", 4_000),
    "kinds": ("A,B,C,D,E,F", tuple(range(6)), 8, 0.003, "cosine", 9_000),
    "induction": ("G", tuple(range(2)), 2, 0.002, "cosine", 16_000),
}


def get_config(family: str = ""):
    if family not in FAMILIES:
        raise ValueError(
            f"name a family, --config=configs/relations_sanity.py:FAMILY with {', '.join(FAMILIES)}, not {family!r}"
        )
    config = default.get_config()
    config.grid.update(d_model=(64,), tuning_seeds=(), extensions=0)
    config.model.update(num_layers=2)
    config.data.update(source="relations")
    config.dose.update(relations=(1,), threshold=0.02, starts=("no_attention",))
    config.train.update(batch_size=32, weight_decay=0.01)
    relations, seeds, heads, rate, schedule, steps = FAMILIES[family]
    config.data.update(relations=relations)
    config.grid.update(init_seeds=seeds, num_heads=(heads,), learning_rates=(rate,))
    config.train.update(schedule=schedule, steps=steps)
    return config
