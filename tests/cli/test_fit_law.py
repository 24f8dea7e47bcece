"""A series goes in; a law, a verdict and a report come out."""

import json

import numpy as np
import pytest

from retrodict.cli import main
from retrodict.systems import System


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    t = np.arange(0, 60, 0.05)
    path = tmp_path_factory.mktemp("series") / "swing.csv"
    values = np.stack([t, np.sin(t), np.cos(t)], 1)
    np.savetxt(path, values, delimiter=",", header="time,x,y", comments="")
    return path


FEW = ("--seeds", "2", "--steps", "30", "--latent", "6", "--sequence", "40", "--batch", "4")


def test_law_verdict_and_report(series, tmp_path, capsys):
    out = tmp_path / "law"
    assert main(["fit-law", str(series), "--with", "al-rnn", "--out", str(out), *FEW]) == 0
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["verdict"] in " ".join(capsys.readouterr().out.split())
    assert verdict["valid"]["n"] == 50
    assert "Lyapunov" in (out / "report.html").read_text()
    assert System.load(out).card.slug == "al-rnn"


def test_what_is_no_law_or_no_series_is_refused_in_a_sentence(series, tmp_path, capsys):
    assert main(["fit-law", str(series), "--with", "vpt", "--out", str(tmp_path / "law")]) == 2
    assert "recovers no law" in capsys.readouterr().err
    still = tmp_path / "still.csv"
    still.write_text("time,x,y\n" + "".join(f"{i / 10},{np.sin(i / 9)},1.0\n" for i in range(900)))
    assert main(["fit-law", str(still), "--out", str(tmp_path / "law"), *FEW]) == 2
    assert "never change" in capsys.readouterr().err
    assert not (tmp_path / "law").exists()
