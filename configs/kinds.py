"""Relations A to F of family K at once (train/data/relations/kinds.py), as one corpus: which head serves which?

Command: python main.py --config=configs/kinds.py
Time:    12 minutes of one core of an AMD EPYC, 15.6 ms a step of each of five runs, and less on 2: a study of one cell
         trains in one process (--launcher=here, by itself), whose steps use both.
Expect:  every relation at most .05 nats above its floor (results/relations.csv, `excess`).
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(8,),
        learning_rates=(0.003,),
        tuning_seeds=(),
        extensions=0,
        init_seeds=(20, 21, 22, 23, 24),
    )
    config.model.update(num_layers=2)
    config.data.update(source="relations", language_seed=20, relations="A,B,C,D,E,F", max_bytes=64 * 300_000)
    config.data.update(tune_fraction=0.004, test_fraction=0.004)
    config.train.update(steps=9_000, batch_size=32, weight_decay=0.01)
    config.claims.update(launches=0)
    return config
