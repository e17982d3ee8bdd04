"""A masked model of plain text, whose heads are read against the gold syntax of labelled text.

Command: python main.py --config=configs/syntax.py --config.data.labelled='conllu:gold/*.conllu'
         with files of Universal Dependencies, such as English EWT and GUM; one word by every token (data.piece=all).
Time:    45 minutes on 2 cores of an AMD EPYC, by some 65 ms a step of each of five runs.
Expect:  a loss that stays at 6.2 to 6.3 nats a piece, what the frequencies of pieces alone give, for the first hundreds
         of steps.
"""

from configs import default


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(128,),
        num_heads=(8,),
        learning_rates=(0.001,),
        tuning_seeds=(),
        extensions=0,
        init_seeds=(20, 21, 22, 23, 24),
    )
    config.model.update(num_layers=4)
    config.data.update(source="docs", tokenizer="bpe", vocab_size=2_048, seq_len=128, max_bytes=0, piece="all")
    config.train.update(objective="masked", mask_fraction=0.3, steps=8_000, batch_size=8, log_every=50)
    config.claims.update(launches=0)
    return config
