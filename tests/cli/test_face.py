"""`import retrodict as rd`: quick, complete, and with every system by its class name."""

import subprocess
import sys

import pytest

import retrodict as rd


def test_importing_costs_nothing():
    code = "import sys, retrodict; print(sorted(m for m in ('numpy', 'torch', 'pyarrow') if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", rd.__all__)
def test_every_public_name_is_there(name):
    assert getattr(rd, name) is not None
    assert name in dir(rd)


def test_systems_are_found_by_class_name_and_listed():
    for system in rd.catalogue().values():
        assert getattr(rd, system.__name__) is system
        assert system.__name__ in dir(rd)


def test_what_is_not_there_is_an_ordinary_attribute_error():
    for name in ("Nothing", "nothing", "_private"):
        with pytest.raises(AttributeError, match=name):
            getattr(rd, name)
