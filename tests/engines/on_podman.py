"""podman, as root."""

import json
import os
import pty
import select
import subprocess
import time

from harness import GROUP, Failure, eventually, said, same, says, within

# The program of a container that waits, and ends when it is asked to.
PATIENT = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"


class Engine:
    """podman with a store and a configuration of its own."""

    def __init__(self, host):
        self.host = host
        self.dir = host.work / "podman"
        self.user = {}

    def __enter__(self):
        self.dir.mkdir()
        self.configure()
        said(self.words("load", "--input", str(self.host.image)), **self.user)
        return self

    def configure(self, more=""):
        """Writes the configuration, as an administrator would."""
        (self.dir / "containers.conf").write_text(f"""
[containers]
netns = "none"
# Limits that are above the machine's own need CAP_SYS_RESOURCE.
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
{more}
[engine]
runtime = "ringfence"
cgroup_manager = "cgroupfs"
events_logger = "file"
[engine.runtimes]
ringfence = ["{self.host.runtime}"]
""")
        (self.dir / "storage.conf").write_text(f"""
[storage]
driver = "vfs"
graphroot = "{self.dir}/root"
runroot = "{self.dir}/run"
""")
        self.user["env"] = {**os.environ, "CONTAINERS_CONF": str(self.dir / "containers.conf"),
                            "CONTAINERS_STORAGE_CONF": str(self.dir / "storage.conf"), "TERM": "xterm"}

    def __exit__(self, *_):
        said(self.words("rm", "--all", "--force", "--time", "0"), **self.user)
        said(self.words("pod", "rm", "--all", "--force"), **self.user)
        said(self.words("rmi", "--all", "--force"), **self.user)

    def words(self, *words):
        return ["podman", *map(str, words)]

    def options(self):
        return ["--cgroup-parent", f"/{GROUP}"]

    def does(self, *words, code=0, **more):
        return said(self.words(*words), code, **self.user, **more)

    def runs(self, *words, code=0, **more):
        """Runs a container, which is removed at its end."""
        return self.does("run", "--rm", *self.options(), *words, code=code, **more)

    def has(self, name, *words, script=PATIENT):
        """Starts a container in the background."""
        self.does("run", "--detach", "--name", name, *self.options(), *words, "box:1", "sh", "-c", script)
        eventually(lambda: self.state(name) == "running", f"{name} runs")

    def state(self, name):
        return self.does("inspect", "--format", "{{.State.Status}}", name)

    def ends(self, name):
        self.does("rm", "--force", "--time", "0", name)
        same(self.does("ps", "--all", "--quiet", "--filter", f"name=^{name}$"), "")

    def on_terminal(self, *words, typed=b"", until=b"", size=(40, 132)):
        """Runs podman on a terminal, types once it has said `until`, and returns what the terminal shows."""
        import fcntl
        import struct
        import termios

        master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
        process = subprocess.Popen(self.words(*words), stdin=slave, stdout=slave, stderr=slave,
                                   start_new_session=True, **self.user)
        os.close(slave)
        shown, deadline = b"", time.monotonic() + 120
        try:
            while True:
                if time.monotonic() > deadline:
                    raise Failure(f"the terminal shows {shown!r} and no end")
                if not select.select([master], [], [], 1)[0]:
                    continue
                try:
                    more = os.read(master, 4096)
                except OSError:
                    break
                if not more:
                    break
                shown += more
                if typed and until in shown:
                    os.write(master, typed)
                    typed = b""
        finally:
            process.kill() if time.monotonic() > deadline else None
            process.wait()
            os.close(master)
        return shown.decode(errors="replace").replace("\r\n", "\n"), process.returncode


def podman_knows_the_runtime(it):
    runtime = json.loads(it.does("info", "--format", "json"))["host"]["ociRuntime"]
    same(runtime["path"], str(it.host.runtime))
    within(runtime["version"], "oci-runtime version")


def a_program_runs_and_its_exit_code_comes_back(it):
    same(it.runs("box:1", "echo", "hello"), "hello")
    it.runs("box:1", "sh", "-c", "exit 7", code=7)
    same(it.runs("--interactive", "box:1", "cat", stdin="typed\n"), "typed")


def a_program_that_is_missing_is_127_and_one_that_cannot_run_is_126(it):
    it.runs("box:1", "no-such-program", code=127)
    it.runs("box:1", "/etc", code=126)
    # An error of podman's own.
    it.runs("--no-such-option", "box:1", code=125)


def the_root_can_be_read_only(it):
    same(it.runs("--read-only", "box:1", "sh", "-c", "touch /x 2>/dev/null || touch /tmp/x && echo read-only"), "read-only")


def rights_can_be_taken_away(it):
    status = it.runs("--cap-drop", "all", "--security-opt", "no-new-privileges", "--user", "65534:65534", "box:1",
                     "cat", "/proc/self/status")
    lines = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    same([lines["CapEff"], lines["CapBnd"], lines["NoNewPrivs"], lines["Seccomp"]], ["0" * 16, "0" * 16, "1", "2"])
    same(it.runs("--user", "65534:65534", "box:1", "id", "-u"), "65534")


def limits_reach_the_kernel(it):
    it.has("limited", "--memory", "64m", "--pids-limit", "50", "--cpus", "0.5")
    try:
        limits = it.does("exec", "limited", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                         "/sys/fs/cgroup/pids/pids.max")
        same(limits.split(), [str(64 << 20), "50"])
        it.does("update", "--memory", "128m", "limited")
        same(it.does("exec", "limited", "cat", "/sys/fs/cgroup/memory/memory.limit_in_bytes"), str(128 << 20))
    finally:
        it.ends("limited")


def a_program_that_uses_too_much_memory_is_killed(it):
    it.runs("--memory", "32m", "box:1", "dd", "if=/dev/zero", "of=/dev/null", "bs=256M", "count=1", code=137)


def ids_are_mapped_for_each_container(it):
    one = it.runs("--userns", "auto", "box:1", "cat", "/proc/self/uid_map").split()
    same(one[0], "0")
    if int(one[1]) < 400000:
        raise Failure(f"root is mapped to {one[1]}")
    same(it.runs("--userns", "auto", "box:1", "sh", "-c", "id -u; stat -c %u /etc/passwd").split(), ["0", "0"])


def volumes_are_bound_and_can_be_the_containers_own(it):
    there = it.dir / "there"
    there.mkdir()
    (there / "file").write_text("shared")
    same(it.runs("--volume", f"{there}:/v", "box:1", "cat", "/v/file"), "shared")
    it.runs("--volume", f"{there}:/v:ro", "box:1", "sh", "-c", "touch /v/x 2>/dev/null", code=1)
    # An overlay: what the container writes is gone with it.
    it.runs("--volume", f"{there}:/v:O", "box:1", "sh", "-c", "echo own > /v/file")
    same((there / "file").read_text(), "shared")
    it.runs("--userns", "auto", "--volume", f"{there}:/v:idmap", "box:1", "touch", "/v/made")
    same((there / "made").stat().st_uid, 0)


def devices_are_added_by_name(it):
    same(it.runs("--device", "/dev/zero:/dev/other", "box:1", "sh", "-c", "head -c 3 /dev/other | wc -c"), "3")
    it.runs("box:1", "sh", "-c", "head -c 1 /dev/fuse", code=1)


def settings_of_the_kernel_are_set(it):
    same(it.runs("--sysctl", "net.ipv4.ip_forward=1", "box:1", "cat", "/proc/sys/net/ipv4/ip_forward"), "1")
    same(it.runs("--hostname", "box", "box:1", "hostname"), "box")
    same(it.runs("--env", "A=b", "--workdir", "/etc", "box:1", "sh", "-c", "echo $A $PWD $HOME"), "b /etc /root")


def a_program_has_a_terminal(it):
    shown, code = it.on_terminal("run", "--rm", "-it", *it.options(), "box:1", "sh", "-c",
                                 "tty; stty size; echo ready; read line; echo got $line; exit 4",
                                 typed=b"words\n", until=b"ready")
    same((code, shown) if code != 4 else 4, 4)
    within(shown, "/dev/pts/0\n40 132\n")
    within(shown, "got words")


def a_terminal_sends_signals(it):
    shown, code = it.on_terminal("run", "--rm", "-it", *it.options(), "box:1", "sh", "-c",
                                 "trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 0.1; done",
                                 typed=b"\x03", until=b"ready")
    same(code, 9)
    within(shown, "interrupted")


def a_further_program_runs_in_a_container(it):
    it.has("living")
    try:
        same(it.does("exec", "living", "echo", "inside"), "inside")
        it.does("exec", "living", "sh", "-c", "exit 3", code=3)
        it.does("exec", "living", "no-such-program", code=127)
        it.does("exec", "living", "/etc", code=126)
        same(it.does("exec", "--user", "65534:65534", "--env", "A=b", "--workdir", "/etc", "living", "sh", "-c",
                     "id -u; echo $A $PWD").split("\n"), ["65534", "b /etc"])
        same(it.does("exec", "--interactive", "living", "cat", stdin="typed\n"), "typed")
        privileged = it.does("exec", "--privileged", "living", "grep", "CapEff", "/proc/self/status").split()[1]
        if int(privileged, 16).bit_count() < 30:
            raise Failure(f"a privileged program has the capabilities {privileged}")
        # podman tells the size once it is attached.
        sized = "tty; while test \"$(stty size)\" = '0 0'; do sleep 0.1; done; stty size; exit 6"
        shown, code = it.on_terminal("exec", "-it", "living", "sh", "-c", sized)
        same((code, shown) if code != 6 else 6, 6)
        within(shown, "40 132")
        it.does("exec", "--detach", "living", "sh", "-c", "echo later > /later; sleep 600")
        eventually(lambda: says(it.words("exec", "living", "cat", "/later"), **it.user).out == "later\n", "a file")
    finally:
        it.ends("living")


def a_container_is_paused_and_goes_on(it):
    it.has("paused")
    try:
        it.does("pause", "paused")
        same(it.state("paused"), "paused")
        it.does("exec", "paused", "true", code=255)
        it.does("unpause", "paused")
        same(it.state("paused"), "running")
    finally:
        it.ends("paused")


def statistics_and_processes_are_shown(it):
    it.has("seen")
    try:
        stats = json.loads(it.does("stats", "--no-stream", "--format", "json", "seen"))
        same([one["name"] for one in stats], ["seen"])
        within(it.does("top", "seen"), "sleep 0.1")
        same(it.does("logs", "seen"), "ready")
    finally:
        it.ends("seen")


def a_container_is_stopped_and_killed(it):
    it.has("stopped")
    eventually(lambda: it.does("logs", "stopped") == "ready", "its trap is set")
    it.does("stop", "--time", "60", "stopped")
    same(it.does("inspect", "--format", "{{.State.ExitCode}}", "stopped"), "5")
    it.does("start", "stopped")
    it.does("kill", "--signal", "KILL", "stopped")
    same(it.does("wait", "stopped"), "137")
    it.ends("stopped")


def the_health_of_a_container_is_checked(it):
    it.has("healthy", "--health-cmd", "test -e /tmp || exit 1", "--health-interval", "disable")
    try:
        same(it.does("healthcheck", "run", "healthy"), "")
        it.does("exec", "healthy", "rm", "-r", "/tmp")
        it.does("healthcheck", "run", "healthy", code=1)
    finally:
        it.ends("healthy")


def an_init_and_its_own_network_are_had(it):
    same(it.runs("--network", "none", "box:1", "sh", "-c", "ls /sys/class/net"), "lo")
    same(it.runs("--pid", "host", "box:1", "sh", "-c", "test $$ -gt 2 && echo host"), "host")
    same(it.runs("--ipc", "host", "--uts", "host", "box:1", "hostname"), os.uname().nodename)


def containers_of_a_pod_share_namespaces(it):
    it.does("pod", "create", "--name", "pod", "--share", "ipc,uts,net", "--network", "none", "--hostname", "shared",
            "--infra-image", "box:1", "--cgroup-parent", f"/{GROUP}")
    try:
        for name in ("one", "two"):
            it.does("run", "--detach", "--pod", "pod", "--name", name, "box:1", "sh", "-c", PATIENT)
        namespaces = [it.does("exec", name, "readlink", "/proc/self/ns/net", "/proc/self/ns/ipc") for name in ("one", "two")]
        same(namespaces[0], namespaces[1])
        same(it.does("exec", "two", "hostname"), "shared")
    finally:
        it.does("pod", "rm", "--force", "--time", "0", "pod")


def many_containers_live_at_once(it):
    names = [f"many{i}" for i in range(8)]
    for name in names:
        it.has(name)
    same(len(it.does("ps", "--quiet").split()), len(names))
    it.does("rm", "--force", "--time", "0", *names)
    same(it.does("ps", "--all", "--quiet"), "")


def nothing_is_left(it):
    same(it.does("ps", "--all", "--quiet"), "")
    state = it.dir / "run"
    within(said([str(it.host.runtime), "list", "--quiet"]) + ".", ".")
    for line in open("/proc/self/mountinfo"):
        if str(state) in line and "/userdata/shm" in line:
            raise Failure(f"a mount is left: {line}")
