import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrodict.errors import DataError
from retrodict.trajectories import ActionSpace, Box, Discrete, MuLaw, MultiBinary
from retrodict.trajectories.codecs import MINECRAFT, MINECRAFT_CODEC, JointCodec

BUTTONS = MINECRAFT.parts["buttons"].names


def action(*pressed, camera=(0.0, 0.0)):
    return MINECRAFT.encode({"buttons": [float(name in pressed) for name in BUTTONS], "camera": camera})


def test_sizes_are_those_of_the_paper():
    assert (MINECRAFT_CODEC.buttons, MINECRAFT_CODEC.mouse) == (8641, 121)
    assert len(BUTTONS) == 20
    assert MINECRAFT_CODEC.encode(np.array(MINECRAFT.null)) == (0, 60)


@pytest.mark.parametrize("first", range(0, 8641, 1080))
def test_every_pair_of_indices_comes_back(first):
    codec = MINECRAFT_CODEC
    buttons, mouse = np.meshgrid(np.arange(first, min(first + 1080, 8641)), np.arange(121), indexing="ij")
    got_buttons, got_mouse = codec.encode(codec.decode(buttons, mouse))
    moves = codec.moves[buttons] & (mouse != codec.still)
    # A movement that is none is coded as none, whichever of the two indices says so; everything else comes back as it was.
    np.testing.assert_array_equal(got_mouse, np.where(moves, mouse, codec.still))
    np.testing.assert_array_equal(got_buttons, np.where(codec.moves[buttons] & ~moves, buttons - 1, buttons))


@given(st.lists(st.sampled_from(BUTTONS), max_size=6), st.floats(-15, 15), st.floats(-15, 15))
def test_decoding_is_stable(pressed, pitch, yaw):
    once = MINECRAFT_CODEC.encode(action(*pressed, camera=(pitch, yaw)))
    assert MINECRAFT_CODEC.encode(MINECRAFT_CODEC.decode(*once)) == once


def test_group_rules():
    def back(*pressed, camera=(0.0, 0.0)):
        flat = MINECRAFT_CODEC.decode(*MINECRAFT_CODEC.encode(action(*pressed, camera=camera)))
        decoded = MINECRAFT.decode(flat)
        return {name for name, held in zip(BUTTONS, decoded["buttons"], strict=True) if held}, decoded["camera"].tolist()

    assert back("forward", "back", "left", "jump")[0] == {"left", "jump"}
    assert back("left", "right")[0] == set()
    assert back("sprint", "sneak")[0] == {"sneak"}
    assert back("hotbar.2", "hotbar.7")[0] == {"hotbar.7"}
    assert back("attack", "use", "drop")[0] == {"attack", "use", "drop"}
    assert back("inventory", "attack", camera=(5.0, 5.0)) == ({"inventory"}, [0.0, 0.0])
    assert back("attack", camera=(10.0, -10.0)) == ({"attack"}, [10.0, -10.0])


def test_any_space_of_buttons_with_or_without_a_mouse():
    buttons = MultiBinary(("a", "b", "c"))
    plain = JointCodec.of(ActionSpace({"keys": buttons}), groups=[("a", "c")])
    assert (plain.buttons, plain.mouse) == (6, 1)
    index = np.arange(6)
    np.testing.assert_array_equal(plain.encode(plain.decode(index, 0 * index))[0], index)
    mouse_first = ActionSpace({"mouse": Box(("turn",), -5, 5, quantiser=MuLaw(5.0, 5)), "keys": buttons})
    codec = JointCodec.of(mouse_first)
    assert (codec.buttons, codec.mouse) == (16, 5)
    flat = codec.decode(np.array([15]), np.array([4]))
    np.testing.assert_allclose(flat, [[5, 1, 1, 1]])


def test_spaces_that_do_not_fit_are_refused():
    for space in (
        ActionSpace({"tool": Discrete(("a", "b"))}),
        ActionSpace({"keys": MultiBinary(("a",)), "arm": Box(("x",))}),
    ):
        with pytest.raises(DataError, match="joint code"):
            JointCodec.of(space)
    with pytest.raises(DataError, match="one group"):
        JointCodec(ActionSpace({"keys": MultiBinary(("a", "b"))}), groups=(("a",),))
