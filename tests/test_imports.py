"""Who may import whom: rules between folders, each with an import that it must catch."""

import ast
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = ("configs", "mha", "train", "eval", "main")
MAY_USE = {  # whole folders that may use nothing but these
    "mha": {"collections", "dataclasses", "flax", "functools", "itertools", "jax", "math", "mha", "numpy", "typing"},
    "configs": {"configs", "itertools", "math", "ml_collections"},
}
MAY_NOT_IMPORT = {  # by folder, the deepest that holds a file decides
    "train": ("eval", "main", "configs"),
    "train/data": ("eval", "main", "configs", "train.losses", "train.run", "train.hosts", "train.study"),
    "train/losses": ("eval", "main", "configs", "train.run", "train.hosts", "train.study"),
    "train/run": ("eval", "main", "configs", "train.study"),
    "train/hosts": ("eval", "main", "configs", "train.study"),
    "eval": ("main", "configs"),
    "eval/heads": (
        *("main", "configs", "eval.judge.claims", "eval.judge.evidence", "eval.judge.verdicts", "eval.measure"),
        *("eval.report", "eval.study", "train.study", "train.hosts"),
    ),
    "eval/measure": ("main", "configs", "eval.judge", "eval.report", "eval.study", "train.study", "train.hosts"),
    "eval/judge": ("main", "configs", "eval.report", "eval.study", "train.hosts"),
    "eval/report": ("main", "configs", "eval.study", "train.hosts"),
}
IN_ONE_FILE = {
    "orbax": "train/run/checkpoint.py",
    "grain": "train/data/batches.py",
    "tensorflow_datasets": "train/data/tfds_text.py",
    "absl": "main.py",
}
NOWHERE = ("tensorflow", "tf", "")  # a relative import has no name to go by


def imports(text: str) -> set[str]:
    """Dotted names of all modules that a source imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{'.' * node.level}{node.module or ''}.{alias.name}" for alias in node.names}
    return names


def broken(path: str, names: set[str]) -> list[str]:
    """The imports of the file at `path` (relative to the root) that the rules forbid."""
    folders = [str(folder) for folder in pathlib.PurePosixPath(path).parents]
    barred = next((MAY_NOT_IMPORT[folder] for folder in folders if folder in MAY_NOT_IMPORT), ())

    def forbidden(name: str) -> bool:
        top = name.split(".")[0]
        if top in NOWHERE or path != IN_ONE_FILE.get(top, path):
            return True
        if folders[-2:-1] and folders[-2] in MAY_USE:
            return top not in MAY_USE[folders[-2]]
        return any(f"{name}.".startswith(f"{module}.") for module in barred)

    return sorted(name for name in names if forbidden(name))


def test_the_tree_keeps_the_rules():
    files = [path for top in OURS for path in [*ROOT.glob(f"{top}/**/*.py"), *ROOT.glob(f"{top}.py")]]
    assert len(files) > 25
    faults = {
        str(path.relative_to(ROOT)): broken(str(path.relative_to(ROOT)), imports(path.read_text())) for path in files
    }
    assert {path: names for path, names in faults.items() if names} == {}


def test_no_folder_and_no_file_is_too_large_to_hold_in_the_head():
    files = [path for top in OURS for path in [*ROOT.glob(f"{top}/**/*.py"), *ROOT.glob(f"{top}/**/*.j2")]]
    counts = {}
    for path in [path for path in files if path.name != "__init__.py"]:
        counts.setdefault(str(path.parent.relative_to(ROOT)), []).append(path)
    assert {folder: len(held) for folder, held in counts.items() if len(held) > 15} == {}
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {path: count for path, count in lines.items() if count > 300} == {}


def test_the_rules_catch_what_they_forbid():
    for path, text in {
        "mha/x.py": "import json",
        "mha/y.py": "from scipy import stats",
        "mha/kernels/x.py": "from train import grid",
        "configs/x.py": "import jax",
        "train/x.py": "def f():\n    from eval import tables",
        "train/y.py": "from absl import flags",
        "train/data/z.py": "import grain",
        "train/data/x.py": "from train.run import step",
        "train/data/relations/x.py": "from train.losses import tokens",
        "train/losses/x.py": "from train.run.step import run",
        "train/run/x.py": "from train.study import tuning",
        "train/hosts/x.py": "import train.study.launch",
        "train/w.py": "import eval",
        "train/v.py": "from .. import eval",
        "eval/x.py": "import main",
        "eval/heads/x.py": "from eval.judge.claims import c1_several_heads",
        "eval/measure/x.py": "from eval.judge import rules",
        "eval/judge/x.py": "from eval.report import page",
        "eval/y.py": "from orbax.checkpoint import v1",
        "main.py": "import tensorflow as tf",
    }.items():
        assert broken(path, imports(text)), path
