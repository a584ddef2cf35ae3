"""podman, as an ordinary user."""

import json
import os

import on_podman
from harness import eventually, said, same, says, within
from on_podman import (  # noqa: F401
    PATIENT,
)


class Engine(on_podman.Engine):
    """podman of a user who has a range of subordinate ids, and no control group of their own."""

    def __init__(self, host):
        super().__init__(host)
        self.dir = host.home() / "podman"
        self.runtime_dir = "/run/user-4321"

    def __enter__(self):
        os.mkdir(self.runtime_dir, 0o700)
        os.chown(self.runtime_dir, 4321, 4321)
        self.dir.mkdir()
        os.chown(self.dir, 4321, 4321)
        self.configure()
        self.user["env"].update(HOME=str(self.host.home()), USER="tester", XDG_RUNTIME_DIR=self.runtime_dir)
        self.user.update(cwd=str(self.host.home()))
        said(self.words("load", "--input", str(self.host.image)), **self.user)
        return self

    def words(self, *words):
        ids = ["--reuid", "4321", "--regid", "4321", "--clear-groups", "--inh-caps=-all"]
        return ["setpriv", *ids, "podman", *map(str, words)]

    def options(self):
        return []


def podman_is_rootless(it):
    info = json.loads(it.does("info", "--format", "json"))["host"]
    same((info["security"]["rootless"], info["ociRuntime"]["path"]), (True, str(it.host.runtime)))


def a_program_runs_and_its_exit_code_comes_back(it):
    same(it.runs("box:1", "echo", "hello"), "hello")
    it.runs("box:1", "sh", "-c", "exit 7", code=7)
    it.runs("box:1", "no-such-program", code=127)
    it.runs("box:1", "/etc", code=126)


def root_inside_is_the_user_outside(it):
    there = it.dir / "there"
    there.mkdir()
    os.chown(there, 4321, 4321)
    same(it.runs("--volume", f"{there}:/v", "box:1", "sh", "-c", "id -u; touch /v/made; stat -c %u /v/made").split(),
         ["0", "0"])
    same((there / "made").stat().st_uid, 4321)
    it.runs("--user", "7:7", "--userns", "keep-id", "box:1", "id", "-u")
    same(it.runs("--user", "7", "box:1", "id", "-u"), "7")


def rights_can_be_taken_away(it):
    status = it.runs("--cap-drop", "all", "--security-opt", "no-new-privileges", "box:1", "cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    same([lines["CapEff"], lines["CapBnd"], lines["NoNewPrivs"], lines["Seccomp"]], ["0" * 16, "0" * 16, "1", "2"])


def a_program_has_a_terminal(it):
    shown, code = it.on_terminal("run", "--rm", "-it", "box:1", "sh", "-c", "tty; stty size; exit 4")
    same((code, shown) if code != 4 else 4, 4)
    within(shown, "/dev/pts/0\n40 132\n")


def a_further_program_runs_in_a_container(it):
    it.has("living")
    try:
        same(it.does("exec", "living", "echo", "inside"), "inside")
        it.does("exec", "living", "sh", "-c", "exit 3", code=3)
        same(it.does("exec", "--user", "7", "living", "id", "-u"), "7")
    finally:
        it.ends("living")


def a_container_is_stopped(it):
    it.has("stopped")
    eventually(lambda: it.does("logs", "stopped") == "ready", "its trap is set")
    it.does("stop", "--time", "60", "stopped")
    same(it.does("inspect", "--format", "{{.State.ExitCode}}", "stopped"), "5")
    it.ends("stopped")


def nothing_is_left(it):
    same(it.does("ps", "--all", "--quiet"), "")
    same(says(["pgrep", "-u", "4321", "-x", "sh"]).out, "")
