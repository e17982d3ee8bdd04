"""JAX's persistent compilation cache, so that a second start of a study does not compile again."""

import os
import pathlib

import jax


def use(say) -> None:
    """Keeps compiled programs in the user's cache folder, unless JAX_COMPILATION_CACHE_DIR names one; JAX's defaults
    would skip every program that compiles in under a second. Without a writable folder, says so and goes on."""
    if not jax.config.jax_compilation_cache_dir:
        home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
        folder = pathlib.Path(home) / "headroom" / "compiled"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / ".writable").write_text("")
        except OSError as error:
            say(f"No compile cache: {folder} cannot be written ({error.strerror}); set JAX_COMPILATION_CACHE_DIR.")
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
