"""Which heads matter (claims C6 and C8): heads closed one at a time, removed one after another, and trained on without.

Command: python main.py --config=configs/redundancy.py --workdir=runs/redundancy
Time:    not measured as a whole; a replica of 1,500 steps takes 80 to 125 s of one core, and there are fourteen, five
         of them again from scratch, and 150 further steps of each judged run for seven sets of heads.
Expect:  from pilots on other documents: single heads cost little, many at once much; with 70 % of the heads gone and
         150 further steps the loss rises by about 5 % of that of an unpruned copy, more than the 1 % of claim C6; no
         head that hurts by .003 nats a byte (C8).
Not:     that heads drawn at random do as well, or what longer training would recover.
"""

from configs import default

ORDERS = ("random_within_layers", "magnitude", "gradient", "gradient_normalised", "one_shot", "greedy", "l0")


def get_config():
    config = default.get_config()
    config.grid.update(
        d_model=(64,),
        num_heads=(4, 16),
        learning_rates=(0.01,),
        extensions=0,
        tuning_seeds=(2100, 2101),
        init_seeds=(2000, 2001, 2002, 2003, 2004),
    )
    config.model.update(num_layers=4)
    config.data.update(seq_len=128, split_seed=21)
    config.train.update(steps=1_500, warmup_steps=150, log_every=25, checkpoint_every=750)
    config.claims.update(cell="d064_h016", launches=0)
    config.pruning.update(
        orders=ORDERS,
        tuning_orders=ORDERS,
        rounds=32,
        draws=3,
        per_document=0,
        recovery_steps=150,
        shares=(0.5, 0.7, 0.9),
    )
    config.ablation.update(per_document=0)
    return config
