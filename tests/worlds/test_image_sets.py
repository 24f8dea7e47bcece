"""Small sets of real images."""

import numpy as np
import pytest
from sklearn.datasets import load_digits

from retrodict.errors import DataError
from retrodict.worlds.image_sets import image_set


def test_digits_are_all_there_and_unrounded():
    digits = image_set("digits")
    assert digits.independent
    images = digits[0]["observation.images.picture"]
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert (images[..., 0] / 15 == load_digits().images).all()
    train, test = image_set("digits", part="train"), image_set("digits", part="test")
    assert (train.steps, test.steps) == (1198, 599)


def test_classes_can_be_held_out_and_images_made_smaller():
    some = image_set("digits", 4, classes=(3, 7))
    assert some.features["observation.images.picture"].shape == (4, 4, 1)
    assert set(some[0]["label.class"].reshape(-1).tolist()) == {3, 7}
    whole, small = image_set("digits")[0]["observation.images.picture"], image_set("digits", 4)[0]["observation.images.picture"]
    assert float(small.mean()) == pytest.approx(float(whole.mean()), abs=0.1)


def test_fashion_is_read_from_the_published_data(published):
    train, test = image_set("fashion", part="train"), image_set("fashion", 14, part="test")
    assert (train.steps, test.steps) == (12000, 6000)
    assert train.features["observation.images.picture"].shape == (28, 28, 1)
    counts = np.bincount(train[0]["label.class"].reshape(-1))
    assert len(counts) == 10
    assert counts.min() == 1122
    assert counts.max() == 1244


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "faces"}, "digits, fashion"),
        ({"name": "digits", "size": 16}, "from 1 to 8"),
        ({"name": "digits", "part": "all"}, "train and test"),
        ({"name": "digits", "classes": (3, 12)}, "no class 12"),
    ],
)
def test_what_is_not_there_is_said(arguments, said):
    with pytest.raises(DataError, match=said):
        image_set(**arguments)


def test_data_that_are_not_there_are_named(monkeypatch):
    monkeypatch.delenv("RETRODICT_DATA", raising=False)
    with pytest.raises(DataError, match="RETRODICT_DATA"):
        image_set("fashion")
