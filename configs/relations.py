"""C4, the primary cell: how many steps one head and eight need to learn 1, 4 and 6 relations (data/relations/dose.py).

Command: python main.py --config=configs/relations.py
Time:    75 minutes on 2 cores beside other work; docs/results/relations.md reads the outcome.
Expect:  a table row a run (results/dose.csv) and the verdicts C4a (does one head learn many relations slower?) and C4b
         (can it not hold them?), both `not testable here`: one head is the slower one at a single relation already.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.d_model = (64,)
    config.grid.num_heads = (1, 8)
    config.grid.learning_rates = (0.001, 0.003, 0.01)
    config.grid.extensions = 1
    config.grid.tuning_seeds = (100, 101)
    config.grid.init_seeds = (0, 1, 2, 3, 4, 5)
    config.model.num_layers = 1
    config.data.source = "relations"
    config.data.demand = "joint"
    config.data.sources = "exchangeable"
    config.dose.relations = (1, 4, 6)
    config.train.steps = 10_000  # the cap
    config.train.batch_size = 32
    config.train.schedule = "constant"
    config.train.weight_decay = 0.01
    return config
