import os
from pathlib import Path

import pytest
from hypothesis import settings

# A test that is slow on a busy machine has not failed; speed is measured in `benchmarks/`.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# The suite is of the CPU, where results are equal to the bit; `tests/gpu` is run by itself, with RETRODICT_TEST_GPU=1.
if "RETRODICT_TEST_GPU" not in os.environ:
    os.environ["CUDA_VISIBLE_DEVICES"] = ""


@pytest.fixture(scope="session")
def published():
    """The folder of published data; tests that read it are skipped where it is not there."""
    folder = Path(os.environ.get("RETRODICT_DATA") or "nowhere")
    if not folder.is_dir():
        pytest.skip("RETRODICT_DATA does not name the folder of published data")
    return folder
