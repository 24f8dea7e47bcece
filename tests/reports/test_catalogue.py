import json

import pytest

from retrodict.errors import DataError
from retrodict.reports import catalogue

RESULT = {
    "slug": "vpt",
    "claim": "Few labels | much video.",
    "holds": False,
    "checks": [
        {"name": "keypress accuracy", "value": 0.93, "interval": [0.92, 0.94], "asked": ">= 0.90", "holds": True},
        {"name": "survival", "value": 1012.4, "interval": None, "asked": ">= 1,100", "holds": False},
    ],
    "tables": [
        {"title": "Success", "columns": ["arm", "mean"], "rows": {"cloned": [{"value": 0.5, "interval": [0.4, 0.6]}]}},
    ],
    "seeds": [0, 1, 2],
    "seconds": 812,
    "command": "retrodict reproduce vpt",
    "versions": {"torch": "2.13.0"},
    "machine": "2 cores, CPU",
    "left_out": ["RL arm"],
}
BENCHMARK = {"name": "window_reading", "work": "", "ours": 20000.0, "peers": {"LeRobotDataset": 400.0}, "ratio": 50.0,
             "goal": ">= 50", "holds": True, "command": "make benchmarks", "machine": "2 cores"}  # fmt: skip


def test_results_say_what_does_not_hold(tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "vpt.json").write_text(json.dumps(RESULT))
    (tmp_path / "benchmarks" / "window_reading.json").write_text(json.dumps(BENCHMARK))
    page = catalogue.results_page(tmp_path)
    assert "| keypress accuracy | 0.93 | [0.92, 0.94] | >= 0.90 | yes |" in page
    assert "| survival | 1,012 |  | >= 1,100 | **no** |" in page
    assert "Success:\n\n| arm | mean |\n|---|---|\n| cloned | 0.5 [0.4, 0.6] |" in page
    assert "Left out: RL arm" in page
    assert "| window_reading | 20,000 | LeRobotDataset 400 | 50 |" in page
    assert catalogue.reproduced(tmp_path / "vpt.json") == "1 of 2 checks hold (3 seeds); parts left out"


def test_nothing_measured_is_said_to_be_so(tmp_path):
    assert "Nothing has been measured yet" in catalogue.results_page(tmp_path)
    assert catalogue.reproduced(tmp_path / "vpt.json") == "not run yet"


def test_damaged_results_are_named(tmp_path):
    (tmp_path / "vpt.json").write_text("{")
    with pytest.raises(DataError, match=r"vpt.json is no JSON"):
        catalogue.reproduced(tmp_path / "vpt.json")


def test_a_readme_without_a_place_for_the_catalogue_is_refused(tmp_path):
    (tmp_path / "README.md").write_text("# retrodict\n")
    with pytest.raises(DataError, match="lacks the lines between which the catalogue goes"):
        catalogue.documents(tmp_path)
