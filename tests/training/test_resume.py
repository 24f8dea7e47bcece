import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from retrodict.errors import DataError
from retrodict.training.checkpoint import Checkpoints

from . import killed


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clean")
    torch.set_num_threads(1)
    done, net = killed.work(folder)
    assert done.steps == 2 * killed.STEPS
    assert done.resumed_at == 0
    return folder, net.state_dict()


def kill_after(folder, checkpoint):
    """Run the training in a process of its own and kill -9 it some steps after a checkpoint."""
    child = subprocess.Popen([sys.executable, killed.__file__, str(folder)], env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not any(int(p.stem.split("-")[1]) >= checkpoint for p in Checkpoints(folder).paths()):
        assert child.poll() is None, "the training ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(0.1)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.slow
def test_killed_twice_and_resumed_it_ends_with_the_same_weights_and_the_same_log(tmp_path, clean):
    folder, weights = clean
    kill_after(tmp_path, checkpoint=20)
    with (tmp_path / "log.csv").open("a") as log:
        log.write("23,first,0.5")  # a line that was being written when the process died
    kill_after(tmp_path, checkpoint=80)
    done, net = killed.work(tmp_path)
    assert 80 <= done.resumed_at < 2 * killed.STEPS
    assert equal(net.state_dict(), weights)
    assert (tmp_path / "log.csv").read_text() == (folder / "log.csv").read_text()
    assert events(tmp_path) == events(folder)


@pytest.fixture(autouse=True)
def interruptible():
    """Whoever starts the tests in the background of a script starts them deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(*_):
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("step", [1, 27, 60, 64, 120])
def test_ctrl_c_in_a_step_keeps_that_step(tmp_path, clean, step):
    def callback(moment):
        if moment.step == step:
            press()

    with pytest.raises(KeyboardInterrupt):
        killed.work(tmp_path, callbacks=(callback,))
    assert Checkpoints(tmp_path).paths()[0].name == f"checkpoint-{step:08d}.pt"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    done, net = killed.work(tmp_path)
    assert done.resumed_at == step
    assert equal(net.state_dict(), clean[1])


def test_ctrl_c_while_waiting_for_data_keeps_the_last_step_and_a_second_one_does_not_wait(tmp_path, clean):
    def reading(step, pause):
        if step == 33:
            press()
            time.sleep(0.1)
        return killed.batches(step)

    with pytest.raises(KeyboardInterrupt):
        killed.work(tmp_path, reading=reading)
    assert Checkpoints(tmp_path).paths()[0].name == "checkpoint-00000033.pt"

    def impatient(moment):
        if moment.step == 45:
            press()
            press()

    with pytest.raises(KeyboardInterrupt):
        killed.work(tmp_path, callbacks=(impatient,))
    done, net = killed.work(tmp_path)
    assert done.resumed_at == 40, "the step under way was left, so what it did is not kept"
    assert equal(net.state_dict(), clean[1])


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder))
    read.Reload()
    return {tag: [(e.step, e.value) for e in read.Scalars(tag)] for tag in read.Tags()["scalars"]}


def test_a_finished_training_is_not_done_again(clean, tmp_path):
    shutil.copytree(clean[0], tmp_path, dirs_exist_ok=True)
    done, net = killed.work(tmp_path)
    assert done.resumed_at == done.steps == 2 * killed.STEPS
    assert equal(net.state_dict(), clean[1])


def test_two_checkpoints_are_kept(clean):
    assert [p.name for p in Checkpoints(clean[0]).paths()] == ["checkpoint-00000120.pt", "checkpoint-00000110.pt"]


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:600] + bytes(400) + b[1000:]])
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(clean, tmp_path, damage):
    shutil.copytree(clean[0], tmp_path, dirs_exist_ok=True)
    newest = Checkpoints(tmp_path).paths()[0]
    newest.write_bytes(damage(newest.read_bytes()))
    with pytest.warns(UserWarning, match=r"checkpoint-00000120.pt cannot be read"):
        done, net = killed.work(tmp_path)
    assert done.resumed_at == 110
    assert equal(net.state_dict(), clean[1])
    assert (tmp_path / "log.csv").read_text() == (clean[0] / "log.csv").read_text()


def test_all_checkpoints_damaged_is_said(clean, tmp_path):
    shutil.copytree(clean[0], tmp_path, dirs_exist_ok=True)
    for path in Checkpoints(tmp_path).paths():
        path.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(DataError, match="none of the checkpoints"):
        killed.work(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    torch.save({"stage": Trap()}, tmp_path / "checkpoint-00000001.pt")
    with pytest.warns(UserWarning, match="cannot be read"), pytest.raises(DataError):
        Checkpoints(tmp_path).latest()
    assert not (tmp_path / "sprung").exists()
