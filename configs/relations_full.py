"""C4's secondary cells: one to 64 heads at every dose, under either demand, with either kind of source, at both depths.

Command: python main.py --config=configs/relations_full.py:CELLS, with CELLS of the list below; each into a workdir of
         its own, runs/relations_full_CELLS. Then, to correct for how many they are,
         python main.py --mode=report --workdir=runs/relations --arms=runs/relations_full_switch_exchangeable_1,...
Time:    not measured: 36 shapes and doses of up to 18 runs each, so several times that of configs/relations.py.
Expect:  as configs/relations.py, T against r for every h; runs of one head from weights by hand beside it. The verdicts
         say that they are of secondary cells. The family that Holm's correction takes has C4a's rule of one head and
         eight at 1 and 6 relations in each of CELLS; the other h and r are in the tables and figures, and in what T
         goes with.

CELLS is demand_sources_depth, such as joint_exchangeable_1, switch_tagged_2, or mlp_first: joint, exchangeable, two
layers of which the first is an MLP alone, at the rate that two layers of attention chose.
"""

import itertools

from configs import relations

CELLS = tuple(
    "_".join(words) for words in itertools.product(("joint", "switch"), ("exchangeable", "tagged"), ("1", "2"))
)
MLP_FIRST = "mlp_first"


def get_config(cells: str = ""):
    if cells not in (*CELLS, MLP_FIRST):
        raise ValueError(
            f"name the cells, --config=configs/relations_full.py:CELLS with {', '.join((*CELLS, MLP_FIRST))}, not "
            f"{cells!r}"
        )
    demand, sources, layers = ("joint", "exchangeable", "2") if cells == MLP_FIRST else cells.split("_")
    config = relations.get_config()
    config.grid.update(num_heads=(1, 2, 4, 8, 16, 64))
    config.model.update(num_layers=int(layers))
    config.data.update(demand=demand, sources=sources)
    config.dose.update(relations=(1, 2, 3, 4, 5, 6), starts=(MLP_FIRST,) if cells == MLP_FIRST else ("hand_built",))
    return config
