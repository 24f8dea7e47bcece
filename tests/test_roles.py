"""What role methods answer with."""

import numpy as np

from retrodict.roles import Panel, Report

X = np.arange(1.0, 5.0)
BOTH = Panel("step", "strength", {"a": (X, X), "b": (X, 2 * X)}, {"a": (X, 1.1 * X)}, "xy")
REPORT = Report(
    {"error": 0.012345, "modes": 3.0},
    ("The theory holds.",),
    {"strength": X},
    (BOTH, Panel("step", "loss", {"loss": (X, X)})),
)


def test_a_report_reads_as_text():
    assert str(REPORT).splitlines() == ["The theory holds.", "  error  0.01235", "  modes  3"]


def test_a_report_draws_theory_as_lines_and_what_was_seen_as_marks_of_the_same_colour():
    first, second = REPORT.plot().axes
    marks, line = next(x for x in first.lines if x.get_marker() == "o"), first.lines[1]
    assert marks.get_linestyle() == "None"
    assert line.get_color() == marks.get_color()
    assert (first.get_xscale(), first.get_yscale(), second.get_xscale()) == ("log", "log", "linear")
    assert [text.get_text() for text in first.get_legend().get_texts()] == ["a", "b"]
    assert second.get_legend() is None
    assert len(Report({"error": 0.0}).plot().axes) == 1
