"""The whole protocol: seven rates a factor 2 apart and three tuning seeds in every cell, ten fresh seeds judged.

Command: python main.py --config=configs/full.py
Time:    hours on 2 cores; docs/results/full.md has the part at d_model 64.
Expect:  four heads .03 nats a byte below one, heads of width 1 .07 above four.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(32, 64),
        head_ratio=4,
        learning_rates=(0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064),
        extensions=2,
        tuning_seeds=(100, 101, 102),
        init_seeds=tuple(range(10)),
    )
    config.data.update(max_bytes=0)
    config.train.update(steps=2_000, warmup_steps=100, log_every=20, checkpoint_every=1_000)
    return config
