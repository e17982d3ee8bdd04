"""Holm at its price: `multipletests` collects garbage at every call, a tenth of a second beside JAX's modules."""

import gc

import pytest


@pytest.fixture(autouse=True, scope="package")
def no_collection():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gc, "collect", lambda *_: 0)
        yield
