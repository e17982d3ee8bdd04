"""The embedded study: what `python main.py` runs. Every field, with its unit.

Command: python main.py
Time:    7 minutes on 2 cores of an AMD EPYC, compiling and evaluation included.
Expect:  six cells of 98,592 to 98,624 non-embedding parameters, eleven runs each; test losses of 2.0 to 2.3 nats a
         byte, 12 to 22 % below a bigram model of the same bytes; after these 500 steps h = 1 ahead of all others, C2
         supported, C1 and C3 refuted.
Not:     'no difference that matters': three fresh seeds show it only where the paired difference varies by at most
         .0037 nats a byte from seed to seed; that heads 'beat' one head, which takes four times the tokens, or that
         d_k is why (configs/arms.py); and three rates, once extended, may leave a best one at the edge. configs/full.py
         has seven rates and ten fresh seeds.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    config = dict(
        grid=dict(
            d_model=(32, 64),
            num_heads=(),  # () = every power of head_ratio up to each d_model, and d_model itself
            head_ratio=8,
            d_k=(),  # head width; () = d_model / num_heads, else every (num_heads, d_k)
            learning_rates=(0.01, 0.02, 0.04),  # peak rates, the same for every cell
            extensions=1,  # rates that may be added at either end, for every cell, while a best one lies there
            tuning_seeds=(100, 101),  # choose each cell's rate; () = all rates run on init_seeds, and no verdicts
            init_seeds=(0, 1, 2),  # fresh seeds, judged at the chosen rate alone
            data_seeds=(),  # data order; () = equal to init_seeds
            seeds="paired",  # paired: seed i sets init and data order; crossed: init_seeds x data_seeds
            repeats=0,  # runs of a crossed grid that are run again, their first weights moved by a millionth: chaos
            match="params",  # what every cell has alike, by d_ff: params (non-embedding) | flops | none
            flops_per_exp=0.0,  # FLOPs that one exp of the softmax counts as, under match = flops
            num_layers=(),  # () = model.num_layers, which sets the budget; else every one of these, at that budget
            logit_scales=(
                "sqrt",
            ),  # sqrt | inverse | learned | qk_norm (mha/attention.py): each tuned, the best judged
        ),
        model=dict(
            num_layers=2,
            d_ff=0,  # of the largest d_model, which sets the budget; 0 = 4 d_model
            dtype="float32",  # of matmuls: float32 | bfloat16 | float64; softmax and loss at least float32
            remat="none",  # what the backward pass recomputes: none | elementwise (all but linear maps) | block (all)
            layers="auto",  # unrolled | scanned (compiled once) | auto: scanned on accelerators from 12 layers
            attention="auto",  # path of mha/kernels; auto = its dispatcher decides
        ),
        data=dict(
            source="docs",  # docs | file:PATH-or-glob | tfds:NAME | conllu:PATH-or-glob | relations | walk
            labelled="",  # conllu:PATH-or-glob, text with gold links: nobody trains on it, heads are measured on it
            tokenizer="bytes",  # bytes | bpe, trained on the train split
            seq_len=64,  # tokens
            max_bytes=3_000_000,  # of text, all splits together; 0 = all there is
            tune_fraction=0.05,  # of the documents
            test_fraction=0.05,
            split_seed=0,  # which documents are tune and test: another number, another hash order
            vocab_size=0,  # tokens of the model; 0 = 257 for bytes, 1,024 for bpe, as many as a language has
            piece="last",  # of conllu: the token of a word that bears its labels, first | last | all
            # Of source=relations alone, but for language_seed, document_tokens and noise, which source=walk has too;
            # train/data/relations/ describes the languages.
            relations="6",  # 1 ... 6: that many, family P; letters such as A,C,G: family K; both: each document of one
            demand="joint",  # P: one answer carries all bits | switch: the query names one relation
            sources="exchangeable",  # P: every slot draws from all alphabets | tagged: a source slot has its own
            language_seed=0,  # draws the documents; its remainder by 6 chooses P's relations, a row of a Latin square
            offsets=(1, 2, 3, 5, 7, 11),  # P: tokens between a source and its query, a bit of the answer each
            frame_tokens=12,  # before each query
            most_fillers=3,  # before each frame
            document_tokens=64,
            distractors=1.0,  # P: share of the slots at no offset that hold a content token
            noise=0.0,  # probability that a bit of an answer is wrong, below .5; of a walk, that it strays
        ),
        train=dict(
            objective="causal",  # causal: predict the next token | masked: hidden ones, from both sides
            mask_fraction=0.15,  # of the tokens, hidden by objective=masked; at most .5
            steps=500,
            batch_size=16,  # windows of seq_len tokens
            schedule="cosine",  # after the warm-up: cosine to 0 | constant
            warmup_steps=50,
            weight_decay=0.1,
            clip_norm=1.0,  # of the whole gradient
            log_every=10,  # steps
            checkpoint_every=250,  # steps; the newest two stay
            keep_checkpoints=(),  # steps whose checkpoints stay for good, of every run
            replica_map="auto",  # replicas of a cell: vmap (at once) | scan (in turn) | auto (scan on CPU)
            windows="all",  # of the train split | halves: even data seeds read its first half, odd ones the other
            accumulate=1,  # parts of a batch, one after another, whose gradients add up; more need less memory
            profile_steps=(),  # first and last step that jax.profiler traces in every cell; () = none
            memory_limit_gb=0.0,  # GiB a cell's program may take; 0 = what the device has
        ),
        eval=dict(
            stride=0,  # tokens between windows of a long document; 0 = seq_len
            batch_size=32,  # windows
        ),
        claims=dict(
            margin=0.01,  # nats/token: a smaller difference does not matter
            tolerance=0.1,  # share by which a step's time or memory may differ and still be 'the same price'
            looks=1,  # times that verdicts may be read while seeds are added; intervals are at 1 - 0.05 / looks
            cell="",  # that claims on single models are judged in; "" = of the largest d_model the best h > 1 on tune
            launches=10,  # processes that time steps for the price; 0 = the price is not judged
            content=0.1,  # effect from which a head is called by a role of content
            position=0.5,  # and by one of position
        ),
        heads=dict(  # what restored heads are watched on
            texts=512,  # windows of a split, evenly spread over it; 0 = no roles and no profiles
            untrained=20,  # models of the same shape whose heads must be outdone, for each layer
        ),
        dose=dict(  # of source=relations, family P; configs/relations.py uses it
            relations=(),  # how many relations, each a dose: a study of the steps that each needs; () = of losses
            threshold=0.05,  # nats a relational bit above the floor
            look_every=50,  # steps; train.steps is the cap
            documents=256,  # that a look is taken on
            starts=(),  # trained beside drawn weights: hand_built (of one head) | no_attention | mlp_first
        ),
        ablation=dict(  # of every head alone, in the judged runs
            kinds=("zero", "mean"),  # zero | mean | resample (another document's) | optimal (constant); () = none
            windows=256,  # of train, that mean outputs are taken of; of tune, that optimal constants are fitted to
            per_document=3,  # windows of each document that effects are measured on, evenly spread; 0 = all
            optimal_steps=60,  # of that fit
        ),
        pruning=dict(  # heads removed one after another
            # Of the judged runs: random | random_within_layers | magnitude | gradient | gradient_normalised |
            # one_shot | greedy (eval/heads/importance/orders.py) | l0 (hard_concrete.py); () = none.
            orders=("gradient",),
            tuning_orders=(),  # of the tuning runs, by which an order is chosen
            rounds=10,  # in which all heads go
            windows=256,  # of tune, that an order is found on
            per_document=3,  # windows of each document that losses are measured on; 0 = all
            draws=1,  # of a random order
            recovery_steps=0,  # of training once heads are removed, and of an unpruned copy (claim C6); 0 = none
            recovery_rate=0.5,  # peak of that training, times the rate that the run was trained at
            shares=(0.7,),  # of the heads that are removed before it, .7 for the claim, others to be shown
            strengths=(0.002, 0.004, 0.008, 0.016, 0.032, 0.05),  # of l0, nats a token and head; a point each
        ),
        mesh=dict(
            data=1,  # devices that share a batch
            replicas=0,  # devices that share out a cell's replicas; 0 = every accelerator of the host, on CPU 1
        ),
    )
    return ConfigDict(config).lock()
