"""The grid: config -> cells -> replicas, with d_ff solved so that every cell has the same budget."""

import dataclasses
import itertools
from collections.abc import Iterable

from mha import budget
from mha.transformer import ModelConfig
from train.config import StudyConfig, refuse

DRAWN, PERTURBED = "drawn", "perturbed"  # weights before step 0; train.run.starts has the others


@dataclasses.dataclass(frozen=True)
class Replica:
    """One training run inside a cell; all of a cell's replicas share every shape.

    Attributes:
      start: what its weights are before step 0.
    """

    learning_rate: float
    init_seed: int
    data_seed: int
    start: str = DRAWN

    @property
    def name(self) -> str:
        start = "" if self.start == DRAWN else f"_{self.start}"
        return f"lr{self.learning_rate:g}_i{self.init_seed}_d{self.data_seed}{start}"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of the grid: a model shape, what it learns from, and the replicas that train it.

    Attributes:
      dose: 0: it learns from the study's corpus; else each replica from its own seed's language, with so many
        relations.
      depth_in_name: whether the grid has several numbers of layers.
    """

    model: ModelConfig
    replicas: tuple[Replica, ...]
    dose: int = 0
    depth_in_name: bool = False

    @property
    def shape(self) -> str:
        """The name less the logit scale and the dose."""
        model = self.model
        name = f"d{model.d_model:03d}_h{model.num_heads:03d}"
        name += "" if model.num_heads * model.d_k == model.d_model else f"_dk{model.d_k:02d}"
        return name + (f"_L{model.num_layers:02d}" if self.depth_in_name else "")

    @property
    def name(self) -> str:
        scale = "" if self.model.logit_scale == "sqrt" else f"_{self.model.logit_scale}"
        return f"{self.shape}{scale}" + (f"_r{self.dose}" if self.dose else "")


def judged_seeds(config: StudyConfig) -> tuple[tuple[int, int], ...]:
    """(init seed, data seed) of the runs that are judged: `paired` gives seed i to both, `crossed` is the factorial."""
    grid = config.grid
    if grid.seeds == "paired":
        return tuple((seed, seed) for seed in grid.init_seeds)
    return tuple(itertools.product(grid.init_seeds, grid.data_seeds))


def choosing_seeds(config: StudyConfig) -> tuple[tuple[int, int], ...]:
    """(init seed, data seed) of the runs that choose each cell's rate: the tuning seeds, or without any the judged."""
    return tuple((seed, seed) for seed in config.grid.tuning_seeds) or judged_seeds(config)


def most_replicas(config: StudyConfig) -> int:
    """Replicas of the larger of the two stages, extensions of the rates aside."""
    return max(len(config.grid.learning_rates) * len(choosing_seeds(config)), len(judged_seeds(config)))


def repeated(config: StudyConfig, rates: Iterable[float]) -> tuple[Replica, ...]:
    """The judged runs that are run again from perturbed weights, spread over all seeds of a crossed grid: diagonals of
    the table of init seeds by data seeds."""
    grid = config.grid
    places = itertools.product(range(len(grid.init_seeds)), range(len(grid.data_seeds)))
    diagonals = sorted(places, key=lambda place: ((place[1] - place[0]) % len(grid.data_seeds), place[0]))
    seeds = [(grid.init_seeds[row], grid.data_seeds[column]) for row, column in diagonals[: grid.repeats]]
    return replicas(rates, seeds, PERTURBED)


def replicas(rates: Iterable[float], seeds: Iterable[tuple[int, int]], start: str = DRAWN) -> tuple[Replica, ...]:
    """Every rate with every pair of seeds."""
    return tuple(Replica(rate, *pair, start) for rate, pair in itertools.product(rates, seeds))


def chooses(replica: Replica, config: StudyConfig) -> bool:
    """Whether a run serves to choose a rate alone, and is never judged."""
    return replica.init_seed in config.grid.tuning_seeds


def cells_of(config: StudyConfig, vocab_size: int) -> tuple[Cell, ...]:
    """All cells of the grid, in the order d_model, num_heads, d_k, layers, logit scale, dose, each with the replicas
    that it trains first.

    `vocab_size` is the corpus's; a model that is trained on hidden tokens has a word more, which stands for them.

    Without `grid.match=none` every cell's d_ff is solved for one budget: that of the largest d_model at h = 1,
    d_k = d_model and model.num_layers, with d_ff = model.d_ff (0: 4*d_model).

    Raises:
      InputError: a num_heads that divides no d_model it meets, or cells that cannot meet the budget (all are named).
    """
    grid, depths = config.grid, config.grid.num_layers or (config.model.num_layers,)
    shapes = [shape for d_model in grid.d_model for shape in _shapes(config, d_model)]
    reference = _model(config, vocab_size, max(grid.d_model), 1, max(grid.d_model), config.model.num_layers)
    flops = budget.flops_per_token(reference) + grid.flops_per_exp * budget.exps_per_token(reference)
    target = {"flops": flops, "flops_per_exp": grid.flops_per_exp}
    if grid.match == "params":
        target = {"params": budget.parameters(reference).non_embedding}
    cells, unmet, runs = [], [], replicas(grid.learning_rates, choosing_seeds(config))
    runs += () if grid.tuning_seeds else repeated(config, grid.learning_rates)
    for shape, layers, scale in itertools.product(shapes, depths, grid.logit_scales):
        model = _model(config, vocab_size, *shape, layers, scale)
        try:
            model = model if grid.match == "none" else budget.with_d_ff_for(model, **target)
        except ValueError as error:
            unmet.append(str(error))
        cells += [Cell(model, runs, dose, bool(grid.num_layers)) for dose in config.dose.relations or (0,)]
    refuse(" ".join(unmet))
    return tuple(cells)


def _shapes(config: StudyConfig, d_model: int) -> list[tuple[int, int, int]]:
    """(d_model, num_heads, d_k) of one d_model; an empty num_heads means every power of head_ratio, and d_model."""
    grid = config.grid
    powers = (grid.head_ratio**i for i in range(d_model.bit_length()))
    heads = grid.num_heads or tuple(sorted({*(power for power in powers if power < d_model), d_model}))
    if grid.d_k:
        return [(d_model, num_heads, d_k) for num_heads in heads for d_k in grid.d_k]
    divisors = ", ".join(str(n) for n in range(1, d_model + 1) if d_model % n == 0)
    refuse(
        *(
            f"num_heads={num_heads} does not divide d_model={d_model}; divisors: {divisors}. "
            f"Change grid.num_heads or grid.d_model, or give the head width by grid.d_k."
            for num_heads in grid.num_heads
            if d_model % num_heads
        )
    )
    return [(d_model, num_heads, d_model // num_heads) for num_heads in heads if d_model % num_heads == 0]


def _model(
    config: StudyConfig, vocab_size: int, d_model: int, num_heads: int, d_k: int, layers: int, scale: str = "sqrt"
) -> ModelConfig:
    shape, causal = config.model, config.train.objective == "causal"
    words = vocab_size + (not causal)  # one for a hidden token
    d_ff = (shape.d_ff or 4 * d_model,) * layers
    form = dict(attention=shape.attention, dtype=shape.dtype, logit_scale=scale, remat=shape.remat)
    return ModelConfig(words, config.data.seq_len, d_model, num_heads, d_k, d_ff, causal, **form)
