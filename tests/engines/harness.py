"""What the checks of all engines need: a host to run them on, commands, and a list of verdicts."""

import inspect
import os
import pathlib
import shutil
import signal
import subprocess
import time
import traceback

GROUP = "ringfence-engines"
PROGRAMS = """sh cat ls id echo env sleep head wc ps hostname mkdir rm touch tty stty grep kill stat true false
    dd mount readlink""".split()


class Failure(Exception):
    """A check that did not hold."""


class Host:
    """A directory for one run, with a copy of the runtime, an image, and files of /etc for an ordinary user."""

    def __init__(self, work, runtime, pack):
        self.work = work
        work.chmod(0o755)
        # An ordinary user has to reach it, too.
        self.runtime = work / "oci-runtime"
        shutil.copy2(runtime, self.runtime)
        self.image = work / "box.tar"
        programs = [word for name in PROGRAMS for word in ("--program", name)]
        store = ["--store", str(work / "store"), "--archive", str(self.image)]
        # As the image of a pod's first container, it waits for its end.
        waits = ["--cmd", "trap 'exit 0' TERM INT; while :; do sleep 0.2; done"]
        said([str(pack), *store, *programs, *waits, "localhost/box:1"])
        self.image.chmod(0o644)
        # The engines' own state, and these files, are those of this mount namespace alone.
        said(["mount", "-t", "tmpfs", "-o", "mode=755", "run", "/run"])
        self.cover("/etc/passwd", "tester:x:4321:4321::{}:/bin/sh\n".format(self.home()))
        self.cover("/etc/group", "tester:x:4321:\n")
        self.cover("/etc/subuid", "tester:200000:65536\ncontainers:400000:1000000\n")
        self.cover("/etc/subgid", "tester:200000:65536\ncontainers:400000:1000000\n")

    def home(self):
        home = self.work / "home"
        if not home.exists():
            home.mkdir()
            os.chown(home, 4321, 4321)
        return home

    def cover(self, path, more):
        """Adds lines to a file of the host, for this mount namespace alone."""
        path = pathlib.Path(path)
        new = self.work / path.name
        new.write_text((path.read_text() if path.exists() else "") + more)
        new.chmod(0o644)
        if path.exists():
            said(["mount", "--bind", str(new), str(path)])

    def leave(self):
        """Removes the control groups, which have to be empty by now."""
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            words = line.split()
            if words[words.index("-") + 1] not in ("cgroup", "cgroup2"):
                continue
            top = pathlib.Path(words[4]) / GROUP
            if top.is_dir():
                for below in sorted(top.rglob("*/"), key=lambda path: -len(path.parts)):
                    below.rmdir()
                top.rmdir()
        said(["umount", "/run"])


def run(engine, module, host, only):
    """Runs the checks of a module in the order in which they stand, and counts verdicts."""
    checks = [(name, check) for name, check in vars(module).items()
              if inspect.isfunction(check) and check.__module__ == module.__name__ and check.__doc__ is None
              and not name.startswith("_")]
    checks = [(name, check) for name, check in checks if not only or only in name]
    passed = failed = 0
    with module.Engine(host) as it:
        for name, check in checks:
            try:
                check(it)
                verdict, passed = "ok", passed + 1
            except Exception:
                verdict, failed = "FAILED", failed + 1
                traceback.print_exc()
            print(f"test {engine}::{name} ... {verdict}", flush=True)
    return passed, failed


class Said:
    """What a command has said, and its exit code."""

    def __init__(self, words, code, out, err):
        self.words, self.code, self.out, self.err = words, code, out, err

    def __str__(self):
        return f"{' '.join(map(str, self.words))}: exit code {self.code}\n{self.out}{self.err}"


def says(words, stdin="", timeout=120, **more):
    """Runs a command to its end."""
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True, errors="replace", start_new_session=True, **more)
    try:
        out, err = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate()
        raise Failure(f"{' '.join(map(str, words))}: no end after {timeout} s\n{out}{err}") from None
    return Said(words, process.returncode, out, err)


def said(words, code=0, **more):
    """Runs a command that ends with this code, and returns its output without the last line feed."""
    all = says(words, **more)
    if all.code != code:
        raise Failure(str(all))
    return all.out.strip()


def same(one, other):
    """Fails if two values differ."""
    if one != other:
        raise Failure(f"{one!r} is not {other!r}")


def within(text, part):
    """Fails if a text does not have this part."""
    if part not in text:
        raise Failure(f"{part!r} is not in {text!r}")


def eventually(look, what, seconds=60):
    """Waits until something is so."""
    until = time.monotonic() + seconds
    while not look():
        if time.monotonic() > until:
            raise Failure(f"not within {seconds} s: {what}")
        time.sleep(0.05)
