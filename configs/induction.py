"""Text that only induction foretells (train/data/relations/walk.py): which heads serve it at h = 1, 4, 16 and d_k = 1?

Command: python main.py --config=configs/induction.py
Time:    8 minutes on 2 cores of an AMD EPYC, by the CPU time of one seed.
Expect:  training losses of 2.4 nats a symbol until induction is learnt, all at once, and 1.1 to 1.2 at the end: by step
         400 at h = 1, 600 at h = 4, 1,100 at h = 16 (seed 0); at h = 64 it is not learnt in these 2,000 steps (2.0).
Not:     verdicts, or a best rate: every cell has the one that learns it soonest at h = 4, of .003, .006 and .012.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(1, 4, 16, 64),
        learning_rates=(0.003,),
        tuning_seeds=(),
        extensions=0,
        init_seeds=(20, 21, 22, 23, 24),
    )
    config.model.update(num_layers=2)
    config.data.update(source="walk", noise=0.1, document_tokens=64, max_bytes=64 * 50_000, language_seed=20)
    config.data.update(tune_fraction=0.02, test_fraction=0.02)
    config.train.update(steps=2_500, batch_size=32, weight_decay=0.01)
    config.train.update(keep_checkpoints=(100, 200, 400, 600, 800, 1_000, 1_500, 2_000))
    config.claims.update(launches=0, cell="d064_h004")
    return config
