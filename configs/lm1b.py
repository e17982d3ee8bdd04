"""One Billion Word (Chelba et al. 2013, TFDS lm1b) at d_model 256 and 512, h = 1 ... 512, on one accelerator host.

Command: python main.py --config=configs/lm1b.py --workdir=runs/lm1b
Needs:   the data set, prepared once with tensorflow-datasets in array_record format (the error message says how).
Time:    of one accelerator, unknown: this study has not been run.
Expect:  one table row for each of the 19 cells, eight replicas a row.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(d_model=(256, 512), head_ratio=2, learning_rates=(0.0005, 0.001, 0.002, 0.004))
    config.model.update(num_layers=6, dtype="bfloat16")
    config.data.update(
        source="tfds:lm1b", seq_len=256, max_bytes=1_000_000_000, tune_fraction=0.001, test_fraction=0.001
    )
    config.train.update(steps=20_000, batch_size=64, warmup_steps=1_000, log_every=100, checkpoint_every=2_000)
    return config
