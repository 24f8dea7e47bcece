import numpy as np
import pytest

from retrodict.errors import DataError
from retrodict.reports import html, pictures
from retrodict.reports.filmstrip import filmstrip, spell
from retrodict.reports.style import RIGHT, WRONG
from retrodict.trajectories import ActionSpace, Box, Discrete, MultiBinary

SPACE = ActionSpace(
    {
        "keys": MultiBinary(("MOVE_FORWARD", "ATTACK")),
        "tool": Discrete(("axe", "hammer")),
        "turn": Box(("turn",), -10, 10, "degrees"),
    }
)
FRAMES = np.zeros((3, 12, 16, 3), np.uint8)
TRUE = np.array([[1, 0, 0, 0.0], [0, 0, 1, 2.5], [1, 1, 0, -4]], np.float32)


def texts(figure):
    return [text.get_text() for text in figure.texts]


def edges(figure):
    return [axes.patches[0].get_edgecolor() for axes in figure.axes]


def test_an_action_in_words():
    assert spell(SPACE, TRUE[0]) == ["move forward", "axe"]
    assert spell(SPACE, TRUE[1]) == ["hammer", "turn +2.5"]
    assert spell(ActionSpace({"keys": MultiBinary(("jump",))}), np.zeros(1)) == ["nothing"]


def test_a_strip_marks_the_frames_whose_label_is_wrong():
    inferred = TRUE.copy()
    inferred[1, 2] = 0  # another tool
    figure = filmstrip(FRAMES, SPACE, {"true": TRUE, "inferred": inferred}, confidence=np.array([0.9, 0.25, 0.5]))
    colours = edges(figure)
    assert colours[0] == colours[2] != colours[1]
    assert len({RIGHT, WRONG}) == 2
    assert {"true", "inferred", "hammer", "90% sure", "25% sure"} <= set(texts(figure))


def test_a_strip_breaks_its_rows_and_wraps_long_words():
    wordy = ActionSpace({"a": Box(("TURN_LEFT_RIGHT_DELTA",), -10, 10)})
    figure = filmstrip(FRAMES, wordy, {"true": np.ones((3, 1), np.float32)}, columns=2)
    below = {axes.get_position().y0 for axes in figure.axes}
    assert len(below) == 2
    assert "turn left right delta +1" in " ".join(texts(filmstrip(FRAMES[:1], wordy, {"true": np.ones((1, 1))}, columns=1)))


def test_a_strip_refuses_actions_of_other_steps():
    with pytest.raises(DataError, match="2 'inferred' actions were given for 3 frames"):
        filmstrip(FRAMES, SPACE, {"true": TRUE, "inferred": TRUE[:2]})


def test_reliability_of_an_honest_confidence_lies_on_the_diagonal():
    rng = np.random.default_rng(0)
    confidence = rng.random(20_000)
    figure = pictures.reliability({"honest": (confidence, rng.random(20_000) < confidence)})
    said, was = figure.axes[0].lines[1].get_data()
    assert np.abs(said - was).max() < 0.05


def test_bars_write_their_numbers_out():
    page = html.picture(pictures.bars({"ours": (911.2, 820, 1004), "random": (331, 300, 360)}, "survival, tics", ("cap", 2100)))
    assert "911  [820, 1,004]" in page
    assert "survival, tics" in page
