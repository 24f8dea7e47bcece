"""The sample system of CONTRIBUTING keeps the contract as it stands there."""

import re
import sys
import textwrap
import types
from pathlib import Path

import pytest

from retrodict.systems import REGISTRY
from retrodict.systems.checks import check_system

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


@pytest.mark.slow
def test_the_sample_system_keeps_the_contract(monkeypatch):
    source = textwrap.dedent(re.search(r" *```python\n(.*?)```", PAGE.read_text(), re.DOTALL)[1])
    module = types.ModuleType("difference")
    monkeypatch.setitem(sys.modules, "difference", module)  # where its dataclass looks for its annotations
    known = dict(REGISTRY)
    try:
        exec(compile(source, str(PAGE), "exec"), module.__dict__)
        check_system(module.Difference(steps=20))
    finally:
        REGISTRY.clear()
        REGISTRY.update(known)
