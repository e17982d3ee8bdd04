"""What heads learn on real text at h = 4, 16, 64: claim C5, on seeds and a split of the text that nothing else used.

Command: python main.py --config=configs/roles.py
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(4, 16, 64),
        learning_rates=(0.01, 0.02),
        tuning_seeds=(120,),
        extensions=1,
        init_seeds=(20, 21, 22, 23, 24, 25, 26, 27),
    )
    config.data.update(split_seed=20)
    config.train.update(steps=1_500, keep_checkpoints=(100, 200, 400, 800))
    config.claims.update(launches=0, cell="d064_h016")
    return config
