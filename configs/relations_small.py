"""Six relations at once, one head against eight: the loss on each relation beside its floor (data/relations/dose.py).

Command: python main.py --config=configs/relations_small.py
Time:    5.4 minutes of processor time (9 minutes on 2 cores that did other work beside).
Expect:  after these 1,500 steps the relational bits of eight heads lie .01 nats a bit above the floor, those of one
         head .52, with the three farthest relations not begun (.70 each, ln 2 = .69); one head learns them later.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(1, 8),
        learning_rates=(0.001, 0.003),
        extensions=0,
        tuning_seeds=(100,),
        init_seeds=(0, 1, 2),
    )
    config.model.update(num_layers=1)
    config.data.update(source="relations", relations="6", max_bytes=3_200_000, tune_fraction=0.01, test_fraction=0.01)
    config.train.update(
        steps=1_500, batch_size=32, schedule="constant", weight_decay=0.01, log_every=25, checkpoint_every=750
    )
    config.claims.update(launches=0)
    return config
