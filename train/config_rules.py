"""What the fields of a config must be to each other; what each may be alone stands beside it in train/config.py."""

import dataclasses
from collections.abc import Iterator


def broken(config) -> Iterator[str]:
    """A sentence, with the numbers and the remedy, for every rule that a train.config.StudyConfig breaks; what is empty
    or false counts for nothing."""
    grid, train, data, mesh = config.grid, config.train, config.data, config.mesh
    judged = sorted({*grid.init_seeds, *grid.data_seeds} & {*grid.tuning_seeds})
    parts = train.accumulate * mesh.data
    for section, what in (("grid", {}), ("dose", {"relations": "dose", "starts": "start"})):
        for name, values in dataclasses.asdict(getattr(config, section)).items():
            if isinstance(values, tuple) and len(set(values)) < len(values):
                yield f"config.{section}.{name}={values} names a {what.get(name, 'value')} twice; name each once."
    yield from (  # each: what is wrong, and then the sentence that says so
        grid.head_ratio < 2
        and f"grid.head_ratio={grid.head_ratio} must be at least 2, the ratio of successive num_heads.",
        grid.seeds == "paired"
        and grid.data_seeds not in ((), grid.init_seeds)
        and f"grid.seeds=paired gives seed i to init and data order together, but grid.data_seeds={grid.data_seeds} "
        f"differs from grid.init_seeds={grid.init_seeds}; leave data_seeds empty, or set grid.seeds=crossed.",
        grid.seeds == "crossed"
        and not grid.data_seeds
        and "grid.seeds=crossed needs grid.data_seeds, such as --config.grid.data_seeds=0,1.",
        grid.repeats > (len(grid.init_seeds) * len(grid.data_seeds) if grid.seeds == "crossed" else 0)
        and f"grid.repeats={grid.repeats} runs so many runs of a crossed grid again, and there are "
        f"{len(grid.init_seeds) * len(grid.data_seeds)} of them under grid.seeds={grid.seeds}; set "
        "grid.seeds=crossed, or fewer repeats.",
        train.windows == "halves"
        and len({seed % 2 for seed in (grid.data_seeds or grid.init_seeds)}) < 2
        and f"train.windows=halves gives even data seeds one half and odd ones the other, and grid.data_seeds="
        f"{grid.data_seeds or grid.init_seeds} are all alike; give both kinds.",
        grid.flops_per_exp
        and grid.match != "flops"
        and f"grid.flops_per_exp={grid.flops_per_exp:g} counts under grid.match=flops alone, and grid.match="
        f"{grid.match}; set the one or drop the other.",
        judged
        and f"grid.tuning_seeds={grid.tuning_seeds} and the seeds that are judged share {judged}; a choice made on a "
        "seed flatters its result, so give grid.tuning_seeds other numbers.",
        grid.extensions
        and not grid.tuning_seeds
        and f"grid.extensions={grid.extensions} extends the rates of the tuning stage, and grid.tuning_seeds is empty; "
        "give tuning seeds, such as --config.grid.tuning_seeds=100,101, or set grid.extensions=0.",
        data.tune_fraction + data.test_fraction >= 1
        and f"data.tune_fraction={data.tune_fraction} and data.test_fraction={data.test_fraction} leave nothing to "
        "train on; their sum must be below 1.",
        data.labelled
        and data.labelled == data.source
        and f"data.labelled={data.labelled} is data.source, whose links are read anyway; drop it.",
        data.labelled
        and data.source in ("relations", "walk")
        and f"data.labelled={data.labelled} is text, and data.source={data.source} has no words for it; give it a "
        "source of text.",
        train.mask_fraction > 0.5
        and f"train.mask_fraction={train.mask_fraction} hides more than it shows; give a number from above 0 to .5.",
        train.objective == "masked"
        and data.seq_len < 2
        and "train.objective=masked with data.seq_len=1 shows a model nothing; give at least 2.",
        train.warmup_steps >= train.steps
        and f"train.warmup_steps={train.warmup_steps} must be below train.steps={train.steps}.",
        max(train.keep_checkpoints, default=0) > train.steps
        and f"train.keep_checkpoints={train.keep_checkpoints} names step {max(train.keep_checkpoints)} and a run ends "
        f"at train.steps={train.steps}; name steps up to that.",
        len(set(train.keep_checkpoints)) < len(train.keep_checkpoints)
        and f"train.keep_checkpoints={train.keep_checkpoints} names a step twice; name each once.",
        train.profile_steps
        and not (len(train.profile_steps) == 2 and max(train.profile_steps) < train.steps)
        and f"train.profile_steps={train.profile_steps} must be the first and the last step to trace, both below "
        f"train.steps={train.steps}, such as --config.train.profile_steps=10,15.",
        config.eval.stride > data.seq_len
        and f"eval.stride={config.eval.stride} exceeds data.seq_len={data.seq_len}, so tokens would go uncounted; "
        f"choose 1 to {data.seq_len}, or 0 for seq_len.",
        train.batch_size % mesh.data
        and f"train.batch_size={train.batch_size} does not divide over mesh.data={mesh.data} devices; make it a "
        f"multiple of {mesh.data}.",
        mesh.data > 1
        and mesh.replicas > 1
        and f"mesh.data={mesh.data} and mesh.replicas={mesh.replicas} both share out a program; set one of them to 1.",
        train.batch_size % parts
        and f"train.batch_size={train.batch_size} does not divide into train.accumulate={train.accumulate} parts over "
        f"mesh.data={mesh.data} devices; make it a multiple of {parts}.",
    )
    yield from _of_pruning(config.pruning)
    if config.dose.relations:
        yield from _of_doses(config.dose, data, train, grid, mesh)


def _of_pruning(pruning) -> Iterator[str]:
    """What removing heads must be."""
    random = {"random", "random_within_layers"}
    lacking = {*pruning.tuning_orders} - random - {*pruning.orders}
    yield from (
        max(pruning.shares) > 1
        and f"pruning.shares={pruning.shares} has a share above 1; each is a share of the heads, such as .7.",
        pruning.recovery_steps
        and not {*pruning.tuning_orders} - random
        and f"pruning.recovery_steps={pruning.recovery_steps} trains on without the heads of one order, which tuning "
        "seeds choose; name orders to choose among in pruning.tuning_orders.",
        pruning.recovery_steps
        and lacking
        and f"pruning.tuning_orders may choose {', '.join(sorted(lacking))}, which pruning.orders lacks; name it there "
        "too, since the judged runs need the order that is chosen.",
    )


def _of_doses(dose, data, train, grid, mesh) -> Iterator[str]:
    """What a study of T against the dose (claim C4) must be."""
    wanted = {
        "data.source=relations": data.source == "relations",
        "train.objective=causal": train.objective == "causal",
        "train.windows=all": train.windows == "all",
        "grid.seeds=paired": grid.seeds == "paired",
        "mesh.data=1": mesh.data == 1,
        f"data.seq_len={data.document_tokens}, a document": data.seq_len == data.document_tokens,
        "grid.tuning_seeds, or a single rate": bool(grid.tuning_seeds) or len(grid.learning_rates) == 1,
        f"train.steps, the cap, a multiple of dose.look_every={dose.look_every}": train.steps % dose.look_every == 0,
        "a single d_model": len(grid.d_model) == 1,
        "grid.num_layers=()": not grid.num_layers,
        "grid.logit_scales=('sqrt',)": grid.logit_scales == ("sqrt",),
    }
    lacking = [what for what, holds in wanted.items() if not holds]
    if lacking:
        yield (
            f"dose.relations={dose.relations} asks how many steps each dose needs; that takes {', '.join(lacking)}. "
            f"configs/relations.py sets them all; dose.relations=() is a study of losses."
        )
