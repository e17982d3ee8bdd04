"""The compile cache: found again by an equal process, and by no other."""

import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import jaxlib
import pytest

from train.hosts import compile_cache, slots

SCRIPT = """
    import json, os, sys
    if sys.argv[1:]:
        os.sched_setaffinity(0, {int(sys.argv[1])})
    import jax, jax.numpy as jnp
    from train.hosts import compile_cache
    said, seen = [], []
    jax.monitoring.register_event_listener(lambda event, **_: seen.append(event))
    compile_cache.use(said.append)
    result = float(jax.jit(lambda x: jnp.tanh(x @ x).sum())(jnp.eye(64)))
    print(json.dumps([seen.count("/jax/compilation_cache/cache_hits"), result, said]))
"""


def compiled(folder: pathlib.Path, *arguments: str) -> tuple[int, float, list[str]]:
    """Cache hits, the result and the warnings of a process that compiles with `folder` as its cache."""
    process = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SCRIPT), *arguments],
        capture_output=True, text=True, check=True, env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(folder)},
    )  # fmt: skip
    return tuple(json.loads(process.stdout))


def test_a_second_process_does_not_compile_again(tmp_path):
    hits, result, said = compiled(tmp_path)
    assert hits == 0 and not said
    again, same, _ = compiled(tmp_path)
    assert again > 0 and same == result


@pytest.mark.skipif(slots.threads() == 1 or not hasattr(os, "sched_setaffinity"), reason="needs two cores")
def test_a_process_with_other_threads_does(tmp_path):
    compiled(tmp_path)
    core = str(min(os.sched_getaffinity(0)))
    assert compiled(tmp_path, core)[0] == 0 and compiled(tmp_path, core)[0] > 0


def test_what_another_version_left_is_ignored(tmp_path):
    """Its folder is another, and bytes that this version cannot read count as none."""
    _, result, _ = compiled(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert jaxlib.__version__ in folder.name
    older = folder.rename(tmp_path / folder.name.replace(jaxlib.__version__, "0.1.2"))
    assert compiled(tmp_path)[:2] == (0, result)
    for path in folder.glob("*-cache"):
        path.write_bytes(b"of another version")
    hits, same, _ = compiled(tmp_path)
    assert hits == 0 and same == result and older.exists()


def test_an_unwritable_folder_is_said_once_and_does_no_harm(tmp_path):
    (tmp_path / "file").write_text("")
    hits, _, said = compiled(tmp_path / "file" / "cache")  # root may write anywhere, but not below a file
    assert hits == 0 and len(said) == 1
    assert "cannot be written (Not a directory)" in said[0] and "JAX_COMPILATION_CACHE_DIR" in said[0]


@pytest.fixture
def settings():
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    names += ("jax_persistent_cache_min_entry_size_bytes",)
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_of_a_user_who_names_none(tmp_path, monkeypatch, settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update("jax_compilation_cache_dir", None)
    for _ in range(2):
        compile_cache.use(lambda text: pytest.fail(text))
        folder = pathlib.Path(jax.config.jax_compilation_cache_dir)
        assert folder.parent == tmp_path / "headroom" / "compiled" and folder.is_dir()
