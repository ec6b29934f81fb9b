"""Signals: before training a process leaves at once and takes back what it began; in training it saves first."""

import array
import fcntl
import os
import pty
import random
import re
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = (
    "--data.limit", "16", "--model.num-layers", "1", "--model.image.widths", "16", "--model.image.blocks", "0",
    "--training.steps", "300", "--training.evaluate-every", "300", "--training.log-every", "1",
)  # fmt: skip
NAMED = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129}
BEGINS = "compiling the train step ..."


@pytest.fixture(autouse=True, scope="module")
def heard_signals():
    """Children inherit signals that are ignored: SIGINT in a job in the background of a shell, SIGHUP under nohup."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def start(data_directory):
    """Start `experiments.train` on a folder; programs come from the tests' cache where they are the same."""

    def start(folder, *options, before=(), stdout=subprocess.PIPE, cache=True, **more):
        command = [*before, sys.executable, "-m", "experiments.train", "configs/tiny.py", *SMALL]
        command += ["--workdir", str(folder), "--data.directory", str(data_directory), *options]
        environment = os.environ | {"JAX_ENABLE_COMPILATION_CACHE": str(cache)}
        pipes = {"stdout": stdout, "stderr": subprocess.PIPE, "text": True, "pipesize": 4096}
        return subprocess.Popen(command, cwd=ROOT, env=environment, **pipes | more)

    return start


def left(process, number):
    """Exit code, errors and seconds from a signal to the end."""
    began = time.monotonic()
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    return process.returncode, errors, time.monotonic() - began


def snapshot(folder):
    """Names and contents of everything but the lock, which names its latest holder."""
    return {
        path.relative_to(folder): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != "lock"
    }


def wait_for_line(process, beginning):
    for line in process.stdout:
        if line.startswith(beginning):
            return
    raise AssertionError(process.communicate())


def wait_for_full_pipe(process):
    """Until the process stands still in a step, as nobody reads its lines: a pipe holds one page."""
    waiting = array.array("i", [0])
    while waiting[0] < 4096 - 128:  # less than two lines of progress fit
        time.sleep(0.05)
        assert process.poll() is None
        fcntl.ioctl(process.stdout, termios.FIONREAD, waiting)
    time.sleep(0.5)


def tries(start, folder, count, seed, *, most):
    """Interrupt `count` starts at random moments of set-up and compilation, by the processor's seconds till then."""
    moments = random.Random(seed)
    before, done = snapshot(folder.parent), 0
    while done < count:
        process = start(folder, "--optimizer.learning-rate", str(0.001 + done * 1e-5), cache=False)
        wait_for_seconds(process, moments.uniform(0.2, most))
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        output, errors = process.communicate(timeout=60)
        assert process.returncode == 130, (done, errors)
        if "stopped after optimizer step" in output:  # too late: it has saved
            shutil.rmtree(folder)
            continue
        assert re.fullmatch(r"interrupted(: [^\n]+)?\n", errors), (done, errors)
        assert time.monotonic() - began < 2, done
        assert snapshot(folder.parent) == before, done
        done += 1


def wait_for_seconds(process, seconds):
    """Wait until a process has used so much of the processor, over all its threads."""
    while process.poll() is None:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:  # utime and stime, proc(5)
            return
        time.sleep(0.02)


def seconds_until_trained(start, folder):
    process = start(folder, cache=False)
    wait_for_line(process, "compiled")
    process.kill()
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = 0
    process.communicate()
    shutil.rmtree(folder)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_random_moments_of_set_up_and_compilation_end_alike(start, tmp_path):
    tries(start, tmp_path / "run", 10, seed=0, most=seconds_until_trained(start, tmp_path / "run"))


def test_random_moments_of_set_up_end_with_one_line_and_an_untouched_folder(start, tmp_path):
    tries(start, tmp_path / "below" / "run", 2, seed=1, most=4)
    assert not any(tmp_path.iterdir()), "not even the folder above"


@pytest.mark.parametrize(
    "name", ["SIGTERM", pytest.param("SIGINT", marks=pytest.mark.slow), pytest.param("SIGHUP", marks=pytest.mark.slow)]
)
def test_a_compilation_is_left_at_once(start, tmp_path, name):
    """Also where the folder was there before."""
    folder = tmp_path / "run"
    if name == "SIGTERM":
        folder.mkdir()
    process = start(folder, "--optimizer.learning-rate", str(random.uniform(1e-3, 2e-3)))
    wait_for_line(process, BEGINS)
    code, errors, seconds = left(process, getattr(signal, name))
    assert (code, errors) == (NAMED[name], "interrupted: nothing was trained or saved\n")
    assert seconds < 2
    assert not any(tmp_path.rglob("*")) if name != "SIGTERM" else list(tmp_path.rglob("*")) == [folder]


def test_training_saves_first_and_a_second_one_leaves_at_once(start, tmp_path):
    """The same folder through three starts: Ctrl-C, Ctrl-C while it resumes, two at once."""
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_line(process, "step 2/")
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    step = int(re.search(r"stopped after optimizer step (\d+) and saved; the same command resumes there\n$", output)[1])
    assert (folder / "checkpoints" / str(step)).is_dir()

    before = snapshot(folder)
    process = start(folder)
    wait_for_line(process, BEGINS)
    code, errors, _ = left(process, signal.SIGINT)
    assert (code, errors) == (130, f"interrupted: saved is optimizer step {step}; the same command resumes there\n")
    assert snapshot(folder) == before

    process = start(folder)
    wait_for_line(process, f"step {step + 2}/")
    wait_for_full_pipe(process)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    code, errors, _ = left(process, signal.SIGINT)
    assert (code, errors) == (130, f"interrupted: saved is optimizer step {step}; the same command resumes there\n")
    assert (folder / "checkpoints" / str(step)).is_dir()


@pytest.mark.slow
def test_a_closed_terminal_saves_first(start, tmp_path):
    folder, (master, terminal) = tmp_path / "run", pty.openpty()
    ends = dict.fromkeys(("stdin", "stdout", "stderr"), terminal)
    options = ("--training.steps", "3000")
    process = start(folder, *options, before=("setsid", "--ctty"), **ends)
    os.close(terminal)
    output = b""
    while not re.search(rb"step \d+/3000 ", output):
        output += read(master, output)
    os.close(master)
    assert process.wait(timeout=60) == 129
    assert [entry.name.isdigit() for entry in (folder / "checkpoints").iterdir()] == [True]


def read(master, so_far):
    try:
        return os.read(master, 1024)
    except OSError:  # the process has ended
        raise AssertionError(so_far[-1000:]) from None


def script(body, *, number=signal.SIGINT, before=()):
    """What a program said that used `interrupts`, and got a signal when it said "now"; and its exit code."""
    text = "import os, signal, sys, time\nfrom pathlib import Path\nfrom vlm_jax.interrupts import *\n" + body
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([*before, sys.executable, "-c", text], cwd=ROOT, **pipes)
    output = ""
    while "now" not in output and (line := process.stdout.readline()):
        output += line
    process.send_signal(number)
    output += process.communicate(timeout=30)[0]
    return process.returncode, output


def test_an_exception_that_python_drops_is_not_needed():
    """As in JAX's callback of the garbage collector: nothing can be raised out of it."""
    spin = "gc.callbacks.append(lambda *_: [time.sleep(0.01) for _ in range(200)])\nprint('now', flush=True)\n"
    code, output = script(f"import gc\ninstall()\n{spin}gc.collect()\nprint('went on')\ntime.sleep(20)")
    assert (code, output) == (130, "now\ninterrupted\n")


def test_what_was_begun_is_taken_back_inside_out_and_nothing_goes_on_meanwhile():
    body = """
install()
turns = [0]
def undo():
    before = turns[0]
    time.sleep(0.3)
    os.write(1, b'stands still\\n' if turns[0] == before else b'goes on\\n')
    1 / 0
with on_interrupt(line=lambda: 'outer', undo=lambda: os.write(1, b'outer undone\\n')):
    with on_interrupt(line=lambda: 'inner', undo=undo):
        print('now', flush=True)
        while True: turns[0] += 1
"""
    code, output = script(body, number=signal.SIGTERM)
    assert (code, output) == (143, "now\ninterrupted: inner\nstands still\nouter undone\n")


def test_leaving_never_hangs():
    code, output = script(
        "install()\nwith on_interrupt(undo=lambda: time.sleep(60)):\n print('now', flush=True)\n time.sleep(60)"
    )
    assert (code, output) == (130, "now\ninterrupted\n")


def test_nohup_is_respected():
    body = "install()\nprint('now', flush=True)\ntime.sleep(0.5)\nprint('went on')"
    ignoring = ("sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    assert script(body, number=signal.SIGHUP, before=ignoring) == (0, "now\nwent on\n")


def test_a_forked_child_has_its_own_signals():
    body = """
install()
child = os.fork()
if child == 0:
    time.sleep(30)
time.sleep(0.2)
os.kill(child, signal.SIGTERM)
print(os.WTERMSIG(os.waitpid(child, 0)[1]), 'now', flush=True)
time.sleep(30)
"""
    assert script(body) == (130, "15 now\ninterrupted\n")


def test_requests_to_stop_are_answered_between_steps():
    body = """
with stop_requests() as stopped:
    print('now', flush=True)
    while not stopped(): time.sleep(0.01)
print('stopped by', stopped(), signal.getsignal(signal.SIGINT) is signal.default_int_handler)
"""
    assert script(body, number=signal.SIGTERM) == (0, "now\nstopped by 15 True\n")


def test_where_the_reader_went_with_the_terminal_nothing_is_raised():
    body = """
with stop_requests() as stopped:
    print('now', file=sys.stderr, flush=True)
    while not stopped(): time.sleep(0.01)
    print_line('nobody reads this')
    print_line('nor this')
print('saved', file=sys.stderr)
"""
    text = f'{sys.executable} -c "$0" | true'
    process = subprocess.Popen(
        ["bash", "-c", text, "import os, signal, sys, time\nfrom vlm_jax.interrupts import *\n" + body],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    assert process.stderr.readline() == "now\n"
    time.sleep(0.2)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.communicate(timeout=30)[1] == "saved\n"


def test_another_command_ends_in_one_line(trained):
    command = [sys.executable, "-m", "experiments.evaluate", str(trained), "--split", "validation"]
    for moment in (0.3, 2):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(moment)
        assert left(process, signal.SIGINT)[:2] == (130, "interrupted\n")


def test_an_error_while_a_thread_compiles_ends_the_command_at_once():
    code = """
import concurrent.futures, time
from vlm_jax import interrupts
from vlm_jax.command_line import run_command
from vlm_jax.errors import InputError

def main(argv):
    pool = concurrent.futures.ThreadPoolExecutor(1)
    interrupts.compiling(pool.submit(time.sleep, 60))
    raise InputError("wrong")

run_command(main, [])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert (ended.returncode, ended.stderr) == (2, "error: wrong\n")
