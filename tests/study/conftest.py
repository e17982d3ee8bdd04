"""One text, one compile cache and one undisturbed study for all tests in this folder, whichever process runs them."""

import contextlib
import fcntl
import os
import pathlib
import shutil

import jax
import numpy as np
import pytest

from tests.study.tiny import Study

WORDS = "the of and a to in is was that for it with as his on be at by had not are but from or have an they".split()


@pytest.fixture(scope="session")
def common(tmp_path_factory):
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "study"
    folder.mkdir(exist_ok=True)
    return folder


@contextlib.contextmanager
def first(path: pathlib.Path):
    """Whether nobody has made `path` yet; the others wait here until this one has."""
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        made = path.with_name(f"{path.name}.made")
        yield not made.exists()
        made.touch()


@pytest.fixture(scope="session", autouse=True)
def compile_cache(common):
    """Shared by these processes and those that they start."""
    folder = str(common / "compiled")
    before = jax.config.jax_compilation_cache_dir, os.environ.get("JAX_COMPILATION_CACHE_DIR")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    jax.config.update("jax_compilation_cache_dir", folder)
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    if before[1] is None:
        del os.environ["JAX_COMPILATION_CACHE_DIR"]
    else:
        os.environ["JAX_COMPILATION_CACHE_DIR"] = before[1]


@pytest.fixture(scope="session")
def text(common):
    path = common / "text.txt"
    with first(path) as mine:
        if mine:
            draw = np.random.default_rng(0)
            path.write_text("\n".join(" ".join(draw.choice(WORDS, 12)) for _ in range(700)))
    return path


@pytest.fixture(scope="session")
def quiet(text, common):
    """The study as it ends when nothing disturbs it; not to be written to."""
    study = Study(text, common / "quiet" / "workdir")
    with first(common / "quiet") as mine:
        if mine:
            shutil.rmtree(study.workdir, ignore_errors=True)  # of one that failed, which each process tells anew
            assert study.run() == 0
    return study


@pytest.fixture
def plain_page(monkeypatch):
    """For the many studies in this process whose page nobody looks at: drawing it takes longer than all the rest."""

    def write(evidence, verdicts):
        report = evidence.workdir.report
        report.mkdir(exist_ok=True)
        (report / "index.html").write_text("A page.")
        return report / "index.html"

    monkeypatch.setattr("eval.report.page.write", write)


@pytest.fixture
def study(text, tmp_path):
    """A study that has not begun."""
    return Study(text, tmp_path / "workdir")


@pytest.fixture
def done(quiet, tmp_path):
    """A copy of the quiet study."""
    return quiet.copy(tmp_path / "workdir")
