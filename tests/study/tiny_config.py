"""The smallest study that has everything: h = 1 and d_k = 1, two seeds; its text as --config=FILE:TEXT."""

from configs import default


def get_config(text: str):
    config = default.get_config()
    config.grid.d_model = (16,)
    config.grid.num_heads = (1, 16)
    config.grid.learning_rates = (0.01,)
    config.grid.tuning_seeds, config.grid.extensions = (), 0
    config.grid.init_seeds = (0, 1)
    config.claims.launches = 0
    config.model.num_layers = 1
    config.data.source = f"file:{text}"
    config.data.seq_len = 16
    config.train.steps = 24
    config.train.batch_size = 4
    config.train.warmup_steps = 2
    config.train.log_every = 1
    config.train.checkpoint_every = 8
    config.eval.batch_size = 8
    config.ablation.kinds, config.pruning.orders, config.heads.texts = (), (), 0
    return config
