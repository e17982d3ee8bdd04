"""Everything but the price, once: two cells, h = 1 and d_k = 1.

Command: python main.py --config=configs/smoke.py --workdir=runs/smoke
Time:    59 seconds on 2 cores of an AMD EPYC, from a cold compile cache.
Expect:  losses of 3.3 to 3.9 nats a byte: too few steps to beat a bigram model, enough to touch every part.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(16,), num_heads=(1, 16), learning_rates=(0.01,), tuning_seeds=(100,), extensions=0, init_seeds=(0, 1)
    )
    config.claims.update(launches=0)
    config.data.update(max_bytes=200_000)
    config.train.update(steps=20, batch_size=8, warmup_steps=5, log_every=5, checkpoint_every=10)
    return config
