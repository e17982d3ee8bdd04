"""Tokens a second of the training loop, logging and checkpoints included, against the bare jitted step in a `for`.

python -m benchmarks.loop --d_model 64 --num_heads 8 --steps 300 --output docs/benchmarks/loop

The bare step is what remains without a loop around it: the same model, data and optimizer, one step a dispatch, batches
already on the device, and nothing read back until the end.
"""

import argparse
import functools
import os
import pathlib
import tempfile
import time

from benchmarks import about


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--d_model", type=int, default=64)
    arguments.add_argument("--num_heads", type=int, default=8)
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--rounds", type=int, default=7)
    arguments.add_argument("--cores", type=int, default=0, help="cores this process may use; 0 for all")
    arguments.add_argument("--output", type=pathlib.Path, help="path and stem of the files to write")
    args = arguments.parse_args()
    if args.cores:  # before JAX starts its threads
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: args.cores])
    run(args)


def run(args):
    from train.hosts import xla_flags

    xla_flags.use()
    import jax

    from benchmarks import scale, timing
    from configs import default
    from train.config import freeze
    from train.data import corpora

    fields = {"grid.d_model": (args.d_model,), "grid.num_heads": (args.num_heads,), "train.steps": args.steps}
    with tempfile.TemporaryDirectory() as folder:
        corpus = corpora.write_corpus(freeze(default.get_config().to_dict()).data, pathlib.Path(folder) / "data")
        program, config = scale.program_of(corpus, 1, fields)
        peers = {"loop": looped(program, config, pathlib.Path(folder)), "bare": bare(program, config, corpus)}
        found = timing.take_turns(peers, args.rounds, 15)
    results = about.describe("loop", jax.devices()[0].device_kind)
    results |= {"d_model": args.d_model, "num_heads": args.num_heads, "steps": args.steps}
    results |= {"batch": config.train.batch_size, "length": config.data.seq_len, "seconds": found}
    text = page(results)
    print(text)
    if args.output:
        about.write(args.output, results, text)


def looped(program, config, folder: pathlib.Path):
    """A run of `timing.take_turns`: seconds that `train.steps` take in train/run/loop.py, from what is between the
    first and the last that it reports."""
    from train.hosts.preemption import Notice
    from train.run import loop
    from train.run.stops import Fixed
    from train.workdir import CellFolder

    class Clock:
        def __init__(self):
            self.seen = []

        def say(self, text: str) -> None:
            pass

        def steps(self, step: int, losses) -> None:
            self.seen.append((step, time.perf_counter()))

    def once() -> float:
        clock = Clock()
        with tempfile.TemporaryDirectory(dir=folder) as cell:
            rule = Fixed(config.train.steps)
            loop.train(program, CellFolder(pathlib.Path(cell)), config, "", rule, Notice(), clock)
        (first, began), (last, ended) = clock.seen[0], clock.seen[-1]
        return (ended - began) / (last - first) * config.train.steps

    return once


def bare(program, config, corpus):
    """A run of `timing.take_turns`: seconds that `train.steps` take one replica, jitted alone and called in a `for`."""
    import jax
    import jax.numpy as jnp
    import optax

    from train.data.batches import Batches
    from train.run import optimizer, step

    pack = program.pack
    model, (replica,) = pack.model, pack.replicas
    transformation, schedule = optimizer.transformation(config.train), optimizer.schedule(config.train)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def one_step(params, opt_state, tokens_BT1, number):
        loss = functools.partial(step.batch_loss, model, corpus.bos)
        value, grads = jax.value_and_grad(loss)(params, tokens_BT1)
        updates, opt_state = transformation.update(grads, opt_state, params)
        rate = replica.learning_rate * schedule(number)
        return optax.apply_updates(params, optimizer.scaled(updates, rate)), opt_state, value

    steps, length = config.train.steps, config.data.seq_len
    order = Batches(corpus.num_windows("train", length), config.train.batch_size, length, replica.data_seed)
    starts, tokens = order.starts(0, steps), corpus.tokens_of("train")
    offsets = range(length + 1)
    batches = [jnp.asarray(tokens[rows[:, None] + list(offsets)].astype("int32")) for rows in starts]
    numbers = [jnp.int32(number) for number in range(steps)]

    def once() -> float:
        state = jax.tree.map(lambda leaf: leaf[0], program.init())
        params, opt_state, loss = one_step(state.params, state.opt_state, batches[0], numbers[0])
        loss.block_until_ready()
        began = time.perf_counter()
        for number in range(1, steps):
            params, opt_state, loss = one_step(params, opt_state, batches[number], numbers[number])
        loss.block_until_ready()
        return (time.perf_counter() - began) / (steps - 1) * steps

    return once


def page(results: dict) -> str:
    """The whole page in Markdown."""
    steps, tokens = results["steps"], results["batch"] * results["length"]
    head = (
        f"{about.heading(results)} One replica at d_model {results['d_model']}, h {results['num_heads']}: {steps} "
        f"steps of {results['batch']} windows of {results['length']} tokens, medians of turns in random order."
    )
    lines = ["| | ms a step (range) | tokens a second |", "|---|---|---|"]
    for name, title in (("loop", "training loop, logging and checkpoints included"), ("bare", "bare jitted step")):
        median, low, high = (1e3 * seconds / steps for seconds in results["seconds"][name])
        lines.append(f"| {title} | {median:.2f} ({low:.2f}-{high:.2f}) | {1e3 * tokens / median:,.0f} |")
    share = results["seconds"]["bare"][0] / results["seconds"]["loop"][0]
    reached = f"The loop reaches {share:.1%} of the bare step's tokens a second."
    return "\n\n".join(["# The training loop against the bare step", head, "\n".join(lines), reached]) + "\n"


if __name__ == "__main__":
    main()
