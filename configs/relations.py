"""C4, the primary cell: how many steps one head and eight need to learn 1, 4 and 6 relations (data/relations/dose.py).

Command: python main.py --config=configs/relations.py
Time:    75 minutes on 2 cores beside other work; docs/results/relations.md reads the outcome.
Expect:  a table row a run (results/dose.csv) and the verdicts C4a (does one head learn many relations slower?) and C4b
         (can it not hold them?), both `not testable here`: one head is the slower one at a single relation already.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(1, 8),
        learning_rates=(0.001, 0.003, 0.01),
        extensions=1,
        tuning_seeds=(100, 101),
        init_seeds=(0, 1, 2, 3, 4, 5),
    )
    config.model.update(num_layers=1)
    config.data.update(source="relations", demand="joint", sources="exchangeable")
    config.dose.update(relations=(1, 4, 6))
    config.train.update(  # steps: the cap
        steps=10_000, batch_size=32, schedule="constant", weight_decay=0.01, checkpoint_every=1_000
    )
    return config
