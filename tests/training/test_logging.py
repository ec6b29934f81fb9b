"""Progress lines, a live bar on a real terminal, and metrics files in which every step stands once."""

import fcntl
import io
import json
import math
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from vlm_jax.training.logging import MetricsLog, Progress, duration

ROOT = Path(__file__).parent.parent.parent
VALUES = {"loss": 0.4312, "accuracy": 0.81, "examples_per_second": 5120.4}


class Clock:
    """Time that passes when told."""

    now = 100.0

    def __call__(self):
        return self.now


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_plain_line_an_interval():
    clock, stream = Clock(), io.StringIO()
    with Progress(2000, stream=stream, clock=clock) as progress:
        with progress.compiling("the train step"):
            clock.now += 4.2
        progress.update(50, VALUES)
        clock.now += 2.0
        progress.update(100, VALUES)
        clock.now += 4.0
        progress.write_line("step 100: validation accuracy 0.9000")
        progress.update(150, VALUES)
    assert stream.getvalue().splitlines() == [
        "compiling the train step ...",
        "compiled the train step in 4.2 s",
        "step 50/2000  loss 0.4312  accuracy 0.8100  5,120 examples/s",
        "step 100/2000  loss 0.4312  accuracy 0.8100  5,120 examples/s  ETA 1:16",  # 1,900 steps of 0.04 s
        "step 100: validation accuracy 0.9000",
        "step 150/2000  loss 0.4312  accuracy 0.8100  5,120 examples/s  ETA 1:51",  # 1,850 steps of 0.06 s
    ]


def test_a_failed_compilation_is_not_called_done():
    stream = io.StringIO()
    with pytest.raises(RuntimeError), Progress(10, stream=stream) as progress, progress.compiling("the train step"):
        raise RuntimeError
    assert stream.getvalue() == "compiling the train step ...\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1:00"), (83, "1:23"), (3599.6, "1:00:00"), (90061, "25:01:01")],
)
def test_durations(seconds, text):
    assert duration(float(seconds)) == text


TERMINAL = """
import sys
from vlm_jax.training.logging import Progress
with Progress(2000, start_step=100) as progress:
    progress.write_line("starting [not markup] " + "x" * 100)
    for step in range(150, 401, 50):
        progress.update(step, {"loss": 0.4312, "accuracy": step / 1000, "examples_per_second": 5120.4})
    progress.write_line("step 400: validation accuracy 0.9")
"""


def on_terminal(columns, kind="xterm"):
    """What a real terminal of that width is sent."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL], cwd=ROOT, env=environment | {"TERM": kind}, stdout=follower, stderr=follower
    )
    os.close(follower)
    sent = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        sent += piece
    os.close(leader)
    assert process.wait() == 0, sent.decode()
    return sent.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_gets_one_live_line(columns):
    sent = on_terminal(columns)
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", sent)
    assert "━" in shown
    rows = [row for row in re.split(r"[\r\n]+", shown) if row.strip()]
    assert all(len(row) <= columns for row in rows if "xxx" not in row), "a live line that wraps leaves rubbish behind"
    assert "step 400/2000  loss 0.4312  accuracy 0.4000  5,120 examples/s" in rows[-1]
    assert "ETA" in rows[-1]
    assert "step 400: validation accuracy 0.9" in rows
    assert "starting [not markup] " + "x" * 100 in shown
    assert sent.count("\n") < 12  # redrawn in place
    assert sent.rindex("\x1b[?25h") > sent.rindex("\x1b[?25l")  # the cursor comes back


def test_a_terminal_that_cannot_redraw_gets_plain_lines():
    sent = on_terminal(80, kind="dumb")
    assert "\x1b" not in sent
    assert len(re.findall(r"^step \d+/2000 ", sent, re.MULTILINE)) == 6


def test_metrics_are_json_lines_and_tensorboard_events(tmp_path):
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(10, {"loss": 0.5, "learning_rate": 1e-3})
        log.write(10, {"validation/accuracy": 0.75})
        log.write(20, {"loss": math.nan, "gradient_norm": math.inf})
    assert lines(tmp_path) == [
        {"step": 10, "loss": 0.5, "learning_rate": 1e-3},
        {"step": 10, "validation/accuracy": 0.75},
        {"step": 20, "loss": None, "gradient_norm": None},
    ]
    assert scalars(tmp_path) == {
        ("train/loss", 10): 0.5,
        ("train/learning_rate", 10): pytest.approx(1e-3),
        ("validation/accuracy", 10): 0.75,
    }


def scalars(folder):
    from tensorboardX.proto.event_pb2 import Event

    values = {}
    for file in sorted((folder / "tensorboard").iterdir()):
        content, place = file.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            values |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
    return values


def test_on_resume_every_step_stands_once(tmp_path):
    with MetricsLog(tmp_path, start_step=0) as log:
        for step in (10, 20, 30, 40):
            log.write(step, {"loss": float(step)})
    with MetricsLog(tmp_path, start_step=20) as log:
        for step in (30, 40, 50):
            log.write(step, {"loss": step + 0.5})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [
        (10, 10.0), (20, 20.0), (30, 30.5), (40, 40.5), (50, 50.5),
    ]  # fmt: skip


def test_a_start_from_zero_drops_what_a_lost_run_logged(tmp_path):
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(10, {"loss": 1.0})
    with MetricsLog(tmp_path, start_step=0):
        assert lines(tmp_path) == []


@pytest.mark.parametrize("rest", ['{"step": 20, "lo', "{}", "[1]", "7", "null", "\x00\x00", "é"])
def test_lines_cut_by_a_kill_are_dropped(tmp_path, rest):
    complete = '{"step": 10, "loss": 1.0}\n'
    (tmp_path / "metrics.jsonl").write_bytes((complete + rest).encode("latin-1"))
    with MetricsLog(tmp_path, start_step=20) as log:
        log.write(30, {"loss": 3.0})
    assert [line["step"] for line in lines(tmp_path)] == [10, 30]


def test_each_line_is_on_disk_when_written(tmp_path):
    """A killed run keeps what it logged."""
    code = (
        "import os, sys; from pathlib import Path; from vlm_jax.training.logging import MetricsLog\n"
        "log = MetricsLog(Path(sys.argv[1]), start_step=0).__enter__()\n"
        "log.write(10, {'loss': 1.0})\nlog.write(20, {'loss': 2.0})\nos.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, timeout=60).returncode == -9
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]


def test_a_kill_while_resuming_loses_no_line(tmp_path, monkeypatch):
    """The old file stays whole until the new one is."""
    with MetricsLog(tmp_path, start_step=0) as log:
        log.write(10, {"loss": 1.0})
        log.write(20, {"loss": 2.0})

    class Killed(BaseException):
        pass

    def kill(*_):
        raise Killed

    monkeypatch.setattr(Path, "replace", kill)
    with pytest.raises(Killed):
        MetricsLog(tmp_path, start_step=20)
    assert [line["step"] for line in lines(tmp_path)] == [10, 20]
