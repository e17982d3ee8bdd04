"""Everything but the price, once: two cells, h = 1 and d_k = 1.

Command: python main.py --config=configs/smoke.py --workdir=runs/smoke
Time:    59 seconds on 2 cores of an AMD EPYC, from a cold compile cache.
Expect:  losses of 3.3 to 3.9 nats a byte: too few steps to beat a bigram model, enough to touch every part.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.d_model = (16,)
    config.grid.num_heads = (1, 16)
    config.grid.learning_rates = (0.01,)
    config.grid.tuning_seeds, config.grid.extensions = (100,), 0
    config.grid.init_seeds = (0, 1)
    config.claims.launches = 0
    config.data.max_bytes = 200_000
    config.train.steps = 20
    config.train.batch_size = 8
    config.train.warmup_steps = 5
    config.train.log_every = 5
    config.train.checkpoint_every = 10
    return config
