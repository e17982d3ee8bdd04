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
    config = ConfigDict()

    config.grid = grid = ConfigDict()
    grid.d_model = (32, 64)
    grid.num_heads = ()  # () = every power of head_ratio up to each d_model, and d_model itself
    grid.head_ratio = 8
    grid.d_k = ()  # head width; () = d_model / num_heads, else every (num_heads, d_k)
    grid.learning_rates = (0.01, 0.02, 0.04)  # peak rates, the same for every cell
    grid.extensions = 1  # rates that may be added at either end, for every cell, while a best one lies there
    grid.tuning_seeds = (100, 101)  # choose each cell's rate; () = all rates run on init_seeds, and no verdicts
    grid.init_seeds = (0, 1, 2)  # fresh seeds, judged at the chosen rate alone
    grid.data_seeds = ()  # data order; () = equal to init_seeds
    grid.seeds = "paired"  # paired: seed i sets init and data order; crossed: init_seeds x data_seeds
    grid.match = "params"  # what every cell has alike, by d_ff: params (non-embedding) | flops | none
    grid.flops_per_exp = 0.0  # FLOPs that one exp of the softmax counts as, under match = flops
    grid.num_layers = ()  # () = model.num_layers, which sets the budget; else every one of these, at that budget
    grid.logit_scales = ("sqrt",)  # sqrt | inverse | learned | qk_norm (mha/attention.py): each tuned, the best judged

    config.model = model = ConfigDict()
    model.num_layers = 2
    model.d_ff = 0  # of the largest d_model, which sets the budget; 0 = 4 d_model
    model.dtype = "float32"  # of matmuls: float32 | bfloat16 | float64; softmax and loss at least float32
    model.remat = "none"  # what the backward pass recomputes: none | elementwise (all but linear maps) | block (all)
    model.layers = "auto"  # unrolled | scanned (compiled once) | auto: scanned on accelerators from 12 layers
    model.attention = "auto"  # path of mha/kernels; auto = its dispatcher decides

    config.data = data = ConfigDict()
    data.source = "docs"  # docs | file:PATH-or-glob | tfds:NAME | conllu:PATH-or-glob | relations
    data.tokenizer = "bytes"  # bytes | bpe, trained on the train split
    data.seq_len = 64  # tokens
    data.max_bytes = 3_000_000  # of text, all splits together; 0 = all there is
    data.tune_fraction = 0.05  # of the documents
    data.test_fraction = 0.05
    data.vocab_size = 0  # tokens of the model; 0 = 257 for bytes, 1,024 for bpe, as many as a language has
    data.piece = "last"  # of source=conllu: the token of a word that bears its labels, first | last | all
    # Of source=relations alone; train/data/relations/ describes the two families of languages.
    data.relations = "6"  # 1 ... 6: that many, family P; letters such as A,C,G: family K; both: each document of one
    data.demand = "joint"  # P: one answer carries all bits | switch: the query names one relation
    data.sources = "exchangeable"  # P: every slot draws from all alphabets | tagged: a source slot has its own
    data.language_seed = 0  # draws the documents; its remainder by 6 chooses P's relations, a row of a Latin square
    data.offsets = (1, 2, 3, 5, 7, 11)  # P: tokens between a source and its query, a bit of the answer each
    data.frame_tokens = 12  # before each query
    data.most_fillers = 3  # before each frame
    data.document_tokens = 64
    data.distractors = 1.0  # P: share of the slots at no offset that hold a content token
    data.noise = 0.0  # probability that a bit of an answer is wrong; below .5

    config.train = train = ConfigDict()
    train.objective = "causal"  # causal: predict the next token | masked: hidden ones, from both sides
    train.mask_fraction = 0.15  # of the tokens, hidden by objective=masked; at most .5
    train.steps = 500
    train.batch_size = 16  # windows of seq_len tokens
    train.schedule = "cosine"  # after the warm-up: cosine to 0 | constant
    train.warmup_steps = 50
    train.weight_decay = 0.1
    train.clip_norm = 1.0  # of the whole gradient
    train.log_every = 10  # steps
    train.checkpoint_every = 250  # steps
    train.replica_map = "auto"  # replicas of a cell: vmap (at once) | scan (in turn) | auto (scan on CPU)
    train.accumulate = 1  # parts of a batch, one after another, whose gradients add up; more need less memory
    train.profile_steps = ()  # first and last step that jax.profiler traces in every cell; () = none
    train.memory_limit_gb = 0.0  # GiB a cell's program may take; 0 = what the device has

    config.eval = ConfigDict()
    config.eval.stride = 0  # tokens between windows of a long document; 0 = seq_len
    config.eval.batch_size = 32  # windows

    config.claims = claims = ConfigDict()
    claims.margin = 0.01  # nats/token: a smaller difference does not matter
    claims.tolerance = 0.1  # share by which a step's time or memory may differ and still be 'the same price'
    claims.looks = 1  # times that verdicts may be read while seeds are added; intervals are at 1 - 0.05 / looks
    claims.launches = 10  # processes that time steps for the price; 0 = the price is not judged

    config.dose = dose = ConfigDict()  # of source=relations, family P; configs/relations.py uses it
    dose.relations = ()  # how many relations, each a dose: a study of the steps that each needs; () = of losses
    dose.threshold = 0.05  # nats a relational bit above the floor
    dose.look_every = 50  # steps; train.steps is the cap
    dose.documents = 256  # that a look is taken on
    dose.starts = ()  # trained beside drawn weights: hand_built (of one head) | no_attention | mlp_first

    config.mesh = ConfigDict()
    config.mesh.data = 1  # devices that share a batch
    config.mesh.replicas = 0  # devices that share out a cell's replicas; 0 = every accelerator of the host, on CPU 1

    return config.lock()
