"""Who may import whom: each rule with an import that it must catch."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = ("configs", "mha", "train", "eval", "main")
MHA_MAY_USE = {"collections", "dataclasses", "flax", "functools", "itertools", "jax", "math", "mha", "numpy", "typing"}
EVAL_MAY_USE = {
    "checkpoint",
    "config",
    "data",
    "dose_study",
    "grid",
    "masked",
    "metrics",
    "packs",
    "relations",
    "replica_axis",
    "sharding",
    "sources",
    "starts",
    "token_loss",
    "tuning",
    "windows",
    "workdir",
}


def imports(text: str) -> set[str]:
    """Dotted names of all modules that a source imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def broken(path: str, names: set[str]) -> list[str]:
    """The imports of the file at `path` (relative to the root) that the rules forbid."""
    package = path.split("/")[0]

    def forbidden(name: str) -> bool:
        top = name.split(".")[0]
        if top in ("tensorflow", "tf", ""):  # a relative import has no name to go by
            return True
        if name.startswith("orbax") and path != "train/checkpoint.py":
            return True
        if top == "grain" and path != "train/data.py":
            return True
        if top == "tensorflow_datasets" and path not in (
            "train/tfds_text.py",
            "train/relations_tfds/relations_tfds.py",
        ):
            return True
        if top == "absl" and path != "main.py":
            return True
        if package == "configs":
            return top not in ("ml_collections", "configs", "math", "itertools")
        if package == "mha":
            return top not in MHA_MAY_USE
        if package == "train":
            return top in ("eval", "main", "configs")
        if package == "eval":
            return top in ("main", "configs") or top == "train" and not {*name.split(".")[1:2]} & EVAL_MAY_USE
        return False

    return sorted(name for name in names if forbidden(name))


def test_the_tree_keeps_the_rules():
    files = [path for top in OURS for path in [*ROOT.glob(f"{top}/**/*.py"), *ROOT.glob(f"{top}.py")]]
    assert len(files) > 25
    faults = {
        str(path.relative_to(ROOT)): broken(str(path.relative_to(ROOT)), imports(path.read_text())) for path in files
    }
    assert {path: names for path, names in faults.items() if names} == {}


def test_the_rules_catch_what_they_forbid():
    for path, text in {
        "mha/x.py": "import json",
        "mha/y.py": "from scipy import stats",
        "mha/kernels/x.py": "from train import grid",
        "configs/x.py": "import jax",
        "train/x.py": "def f():\n    from eval import loss",
        "train/y.py": "from absl import flags",
        "train/z.py": "import grain",
        "eval/x.py": "from train import loop",
        "eval/z.py": "import train",
        "eval/w.py": "from train.step import run",
        "train/w.py": "import eval",
        "train/v.py": "from .. import eval",
        "eval/y.py": "from orbax.checkpoint import v1",
        "main.py": "import tensorflow as tf",
    }.items():
        assert broken(path, imports(text)), path
