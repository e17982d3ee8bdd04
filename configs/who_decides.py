"""Who decides which head learns what, the init or the data's order? 8 x 8 of them on the language of induction (C9).

Command: python main.py --config=configs/who_decides.py, and, each into a workdir of its own,
         --config=configs/who_decides.py:content, where even and odd data seeds read disjoint halves of train.
Time:    not measured whole; 9 seconds of CPU time a replica on an AMD EPYC, so 12 minutes for 80, and 5 for content.
Expect:  agreement of heads by index and matched, in results/stability.parquet and on the page, with the verdicts C9a
         and C9b: shares of init, order, both together and chaos, which 16 runs from weights a millionth off tell.
"""

from configs import induction

ARMS = ("", "content")


def get_config(arm: str = ""):
    if arm not in ARMS:
        raise ValueError(f"name the arm, --config=configs/who_decides.py:content, or none, not {arm!r}")
    config = induction.get_config()
    seeds = tuple(range(40, 48))  # which no other study has used, nor its language
    config.grid.update(d_model=(32,), num_heads=(4,), learning_rates=(0.003,), init_seeds=seeds)
    config.grid.update(seeds="crossed", data_seeds=seeds[:4] if arm else seeds, repeats=0 if arm else 16)
    config.data.update(language_seed=40)
    config.claims.update(cell="")
    config.train.update(steps=1_000, keep_checkpoints=(100, 200, 400, 600, 800), windows="halves" if arm else "all")
    return config
