"""JAX's persistent compilation cache, so that a second start of a study, or another worker, does not compile again."""

import os
import pathlib

import jax
import jaxlib

from train.hosts import slots


def use(say) -> None:
    """Keeps compiled programs in the user's cache folder, or the one that JAX_COMPILATION_CACHE_DIR names; JAX's
    defaults would skip every program that compiles in under a second. Without a writable folder, says so and goes on.

    Each version of XLA has a folder of its own, and each number of threads: JAX's keys leave the threads out, so a
    program that XLA has cut for two of them would be found, and run, by a worker that has one, and the other way round.
    """
    own, named = f"jaxlib-{jaxlib.__version__}-threads-{slots.threads()}", jax.config.jax_compilation_cache_dir
    home = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
    folder = pathlib.Path(named) if named else home / "headroom" / "compiled"
    folder = folder if folder.name == own else folder / own
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").write_text("")
    except OSError as error:
        jax.config.update("jax_enable_compilation_cache", False)
        say(f"No compile cache: {folder} cannot be written ({error.strerror}); set JAX_COMPILATION_CACHE_DIR.")
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
