"""A series goes in; a law, a verdict and a report come out."""

import json
import re

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
    assert 2 <= verdict["valid"]["n"] < 50  # what 50 starts are worth: those that overlap fail together
    assert "Lyapunov" in (out / "report.html").read_text()
    assert System.load(out).card.slug == "al-rnn"


def test_what_is_no_law_or_no_series_is_refused_in_a_sentence(series, tmp_path, capsys):
    assert main(["fit-law", str(series), "--with", "vpt", "--out", str(tmp_path / "law")]) == 2
    assert "recovers no law" in capsys.readouterr().err
    assert main(["fit-law", str(series), "--with", "koopman-vae", "--out", str(tmp_path / "law")]) == 2
    assert "a law of something else than observations" in capsys.readouterr().err
    assert main(["fit-law", str(series), "--with", "koopman-limits", "--delays", "3", "--out", str(tmp_path / "law")]) == 2
    assert "leave out the delays" in capsys.readouterr().err
    still = tmp_path / "still.csv"
    still.write_text("time,x,y\n" + "".join(f"{i / 10},{np.sin(i / 9)},1.0\n" for i in range(900)))
    assert main(["fit-law", str(still), "--out", str(tmp_path / "law"), *FEW]) == 2
    assert "'y' stands still" in capsys.readouterr().err
    assert not (tmp_path / "law").exists()


def test_many_short_episodes_are_told_what_would_do(tmp_path, capsys):
    path, t = tmp_path / "short.csv", np.arange(30) / 20
    rows = [f"{i},{np.sin(s + i * 1.5)},{np.cos(s + i * 1.5)}\n" for i in range(40) for s in t]
    path.write_text("episode,x,y\n" + "".join(rows))
    line = ["fit-law", str(path), "--with", "sindy", "--out", str(tmp_path / "law"), "--seeds", "1"]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "the longest run held out here has 30: record longer runs. More short episodes do not help" in said
    assert "leave out the column that numbers them: --leave-out" in said
    assert main([*line, "--leave-out", "episode"]) == 0


def test_sindy_shows_what_it_chose_from_and_how_sure_each_term_is(series, tmp_path, capsys):
    out = tmp_path / "law"
    assert main(["fit-law", str(series), "--with", "sindy", "--out", str(out), "--seeds", "2"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "A law was found" in said
    assert re.search(r"dx/dt = (0\.99999\d* |1\.0000\d* )?y dy/dt = - (0\.99999\d* |1\.0000\d* )?x", said)
    verdict = json.loads((out / "verdict.json").read_text())
    assert verdict["trusted"]
    assert len(verdict["evidence"]["tried"]["held-out error"]) == 28
    assert verdict["evidence"]["values"]["least inclusion of a term that is kept"] == 1
    page = (out / "report.html").read_text()
    for shown in (
        "inclusion probability",
        "Everything that was tried",
        "stays near the data",
        "dx/dt = ",
        "valid time of a forecast",
    ):
        assert shown in page
    assert System.load(out).equations()[0].startswith("dx/dt = ")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda t: np.stack([np.sin(t), np.full_like(t, 3)], 1), "'y' stands still"),
        (lambda t: np.stack([np.sin(t), np.cos(t)], 1)[:90], "too short"),
        (lambda t: np.random.default_rng(0).normal(size=(len(t), 2)), "too noisy"),
        (lambda t: np.exp(-5 * t)[:, None] * np.stack([np.sin(t), np.cos(t)], 1), "without a transient"),
        (lambda t: np.stack([np.sin(t), 2 * np.sin(t)], 1), "a channel repeats others"),
    ],
)
def test_sindy_refuses_with_the_reason_and_writes_nothing(make, reason, tmp_path, capsys):
    values = make(0.05 * np.arange(1200))
    path = tmp_path / "series.csv"
    columns = np.column_stack([0.05 * np.arange(len(values)), values])
    np.savetxt(path, columns, delimiter=",", header="time,x,y", comments="", fmt="%.17g")
    assert main(["fit-law", str(path), "--with", "sindy", "--out", str(tmp_path / "law")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "no law is identifiable from this recording" in said
    assert reason in said
    assert [entry.name for entry in tmp_path.iterdir()] == ["series.csv"]
