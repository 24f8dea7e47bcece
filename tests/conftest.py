import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def published():
    """The folder of published data; tests that read it are skipped where it is not there."""
    folder = Path(os.environ.get("RETRODICT_DATA") or "nowhere")
    if not folder.is_dir():
        pytest.skip("RETRODICT_DATA does not name the folder of published data")
    return folder
