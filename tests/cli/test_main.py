"""What every command has in common: help, exit codes, errors in one sentence, a quick start."""

import errno
import json
import subprocess
import sys
import warnings

import h5py
import numpy as np
import pytest

from retrodict.cli import COMMANDS, main
from retrodict.trajectories import stores


@pytest.fixture
def swing(tmp_path):
    path = tmp_path / "swing.csv"
    path.write_text("time,x,action\n" + "".join(f"{i / 10},{i * 0.3},{i % 2}\n" for i in range(20)))
    return path


@pytest.mark.parametrize("name", COMMANDS)
def test_help_explains_with_an_example(name, capsys):
    assert main([name, "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"Example: retrodict {name}" in shown or f"example: retrodict {name}" in shown


def test_overview_names_every_command(capsys):
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize("line", ["--help", "info --help", "label --help", "evaluate --help"])
def test_help_does_not_wait_for_torch(line):
    slow = ["torch", "pyarrow", "matplotlib"]
    code = f"import sys; from retrodict.cli import main; main({line.split()}); print([m for m in {slow} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_misspelt_command_is_answered_with_the_likely_one(capsys):
    assert main(["lable", "play"]) == 2
    assert "did you mean 'label'?" in capsys.readouterr().err


def test_a_misspelt_option_exits_with_2(swing, capsys):
    assert main(["info", str(swing), "--jsn"]) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "line",
    [
        "info nowhere",
        "convert nowhere there",
        "align nowhere",
        "label nowhere --out there",
        "train vpt nowhere --out there",
        "train nothing nowhere --out there",
        "evaluate nowhere vizdoom/health-gathering",
        "record nowhere/at-all --out there",
        "record vizdoom/health-gathering --out there --set seed=1",
        "record vizdoom/health-gathering --out there --set id=1",
        "record vizdoom/health-gathering --out there --set progress=False",
        "evaluate nowhere vizdoom/health-gathering --episodes 0",
        "evaluate nowhere vizdoom/health-gathering --max-steps 0",
        "fit-law nowhere --out there --seeds 0",
        "train vpt nowhere --out .",
        "train vpt nowhere --out /",
        "systems nothing",
        "reproduce nothing",
    ],
)
def test_what_the_user_can_mend_is_one_sentence_and_2(line, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert len(said.err.splitlines()) == 1
    assert said.err.startswith(f"retrodict {line.split()[0]}: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "sentence"), [("info", "nothing was changed"), ("convert", "the same command carries on")])
def test_ctrl_c_is_130_and_says_what_is_kept(name, sentence, swing, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(stores, "open", stopped)
    monkeypatch.setattr(stores, "convert", stopped)
    arguments = [name, str(swing), str(tmp_path / "out")] if name == "convert" else [name, str(swing)]
    assert main(arguments) == 130
    assert sentence in capsys.readouterr().err


def test_a_full_disk_is_said_in_a_sentence(swing, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "/data/out")

    monkeypatch.setattr(stores, "open", full)
    assert main(["info", str(swing)]) == 2
    assert capsys.readouterr().err == "retrodict info: /data/out: No space left on device.\n"


def test_a_fault_of_ours_is_not_hidden(swing, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(stores, "open", broken)
    with pytest.raises(ZeroDivisionError):
        main(["info", str(swing)])


def test_output_may_be_cut_off_by_its_reader(swing):
    line = f"{sys.executable} -m retrodict.cli info {swing} --json --episodes | head -c 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_info_as_json_is_what_a_script_wants(swing, capsys):
    assert main(["info", str(swing), "--json", "--episodes"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["episodes"], said["steps"], said["fps"]) == (1, 20, 10.0)
    assert said["features"]["observation.state"] == {"dtype": "float64", "shape": [1], "names": ["x"], "episodes": 1}
    assert said["labels"] == {"recorded": 20, "inferred": 0, "corrected": 0, "missing": 0, "confidence": None}
    assert said["episode_list"] == [{"episode": 0, "steps": 20, "task": None, "domain": None, "lacks": []}]
    assert any("taken for the clock" in sentence for sentence in said["guessed"])


def test_info_says_what_a_dataset_is_now_and_which_actions_are_missing(swing, tmp_path, capsys):
    swing.write_text("time,x,action\n" + "".join(f"{i / 10},{i * 0.3},{i % 2 if i > 4 else ''}\n" for i in range(20)))
    assert main(["info", str(swing)]) == 2
    assert "--nan-is-missing" in capsys.readouterr().err
    assert main(["convert", str(swing), str(tmp_path / "out"), "--nan-is-missing"]) == 0
    capsys.readouterr()
    assert main(["info", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["format"], said["origin"]) == ("lerobot", {"path": str(swing), "format": "tables"})
    assert said["labels"] == {"recorded": 15, "inferred": 0, "corrected": 0, "missing": 5, "confidence": None}
    assert main(["info", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert f"first read from {swing} (tables)" in shown
    assert "15 steps recorded, 5 steps missing" in shown


def test_info_for_people_says_what_is_unknown_and_guessed(swing, capsys):
    assert main(["info", str(swing)]) == 0
    shown = capsys.readouterr().out
    assert "1 episode; 20 steps; 10 per second" in shown
    assert "timing: unknown" in shown
    assert "Guessed" in shown


def test_convert_shows_its_guesses_and_writes(swing, tmp_path, capsys):
    assert main(["convert", str(swing), str(tmp_path / "out"), "--dry-run"]) == 0
    assert "guessed: " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert main(["convert", str(swing), str(tmp_path / "out")]) == 0
    assert stores.open(tmp_path / "out").steps == 20
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert main(["convert", str(swing), str(tmp_path / "out")]) == 2
    assert "on the command line --overwrite" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    assert main(["convert", str(swing), str(tmp_path / "out"), "--overwrite"]) == 0
    assert main(["convert", str(swing), str(tmp_path / "out-v0"), "--format", "minari"]) == 0
    assert main(["convert", str(swing), str(tmp_path / "out-v0"), "--format", "minari"]) == 2
    assert "on the command line --overwrite" in capsys.readouterr().err
    assert main(["convert", str(swing), str(tmp_path / "out-v0"), "--format", "minari", "--overwrite"]) == 0


def test_a_range_of_actions_is_said_to_any_command_that_opens_files(tmp_path, capsys):
    rng = np.random.default_rng(0)
    ends = np.arange(60) % 20 == 19
    arrays = {"observations": rng.normal(size=(60, 3)), "actions": rng.uniform(-1, 1, (60, 2)), "rewards": rng.normal(size=60)}
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        for name, array in {**arrays, "terminals": ends, "timeouts": ~ends & False}.items():
            file[name] = np.float32(array)
    few = ["--steps", "2", "--batch", "4"]
    line = ["train", "td3-bc", str(tmp_path / "a.hdf5"), "--out", str(tmp_path / "model"), *few]
    assert main(line) == 2
    assert "on the command line --action-range LOW HIGH" in capsys.readouterr().err
    assert main([*line, "--action-range", "-0.5", "0.5"]) == 2
    assert "outside its range from -0.5 to 0.5, as is stated" in capsys.readouterr().err
    assert main([*line, "--action-range", "-1", "1"]) == 0
    assert main(["convert", str(tmp_path / "a.hdf5"), str(tmp_path / "out"), "--action-range", "-1", "1", "-2", "2"]) == 0
    assert [part.high for part in stores.open(tmp_path / "out").actions.parts.values()] == [1, 2]


def test_systems_are_listed_for_people_and_scripts(capsys):
    assert main(["systems"]) == 0
    assert "vpt" in capsys.readouterr().out
    assert main(["systems", "--role", "Policy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found
    assert all("Policy" in entry["roles"] for entry in found)


def test_systems_say_where_results_can_be_read_where_there_are_none(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for line in (["systems"], ["systems", "vpt"]):
        assert main(line) == 0
        shown = " ".join(capsys.readouterr().out.split())
        assert "no results here" in shown
        assert "not run yet" not in shown
        assert "RESULTS.md and results/ of the repository" in shown
    (tmp_path / "results").mkdir()
    assert main(["systems", "vpt"]) == 0
    assert "not run yet" in capsys.readouterr().out


def test_a_warning_is_one_sentence_without_the_line_of_code_it_comes_from(monkeypatch, capsys):
    import retrodict.cli.info as info

    monkeypatch.setattr(info, "run", lambda argv: warnings.warn("actions are two rows late.", stacklevel=1))
    assert main(["info", "anything"]) == 0
    assert capsys.readouterr().err == "retrodict info: warning: actions are two rows late.\n"
