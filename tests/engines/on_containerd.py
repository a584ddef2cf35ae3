"""containerd, driven by ctr."""

import os
import subprocess

from harness import GROUP, eventually, said, same, says, within

PATIENT = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"


class Engine:
    """A containerd of its own, with its state below this mount namespace's /run."""

    def __init__(self, host):
        self.host = host
        self.dir = host.work / "containerd"

    def __enter__(self):
        self.dir.mkdir(exist_ok=True)
        config = self.dir / "config.toml"
        config.write_text(f"""
version = 2
root = "{self.dir}/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
    "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs"]
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/box:1"
  disable_apparmor = true
  # A lower score needs CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{self.dir}/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ringfence]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.ringfence.options]
        BinaryName = "{self.host.runtime}"
""")
        networks = self.dir / "net.d"
        networks.mkdir(exist_ok=True)
        (networks / "10-bridge.conflist").write_text(f"""{{"cniVersion": "0.4.0", "name": "pods", "plugins": [
            {{"type": "bridge", "bridge": "pods0", "isGateway": true, "ipam": {{"type": "host-local",
              "dataDir": "{self.dir}/leases", "ranges": [[{{"subnet": "10.89.7.0/24"}}]]}}}}]}}""")
        self.log = open(self.dir / "log", "a")
        self.daemon = subprocess.Popen(["containerd", "--config", str(config)], stdout=self.log, stderr=self.log,
                                       stdin=subprocess.DEVNULL, start_new_session=True)
        eventually(lambda: says(["ctr", "version"]).code == 0, "containerd answers")
        for namespace in ("default", "k8s.io"):
            said(["ctr", "--namespace", namespace, "images", "import", "--snapshotter", "native", str(self.host.image)],
                 timeout=300)
        return self

    def __exit__(self, *_):
        for words in (["tasks", "ls", "-q"], ["containers", "ls", "-q"]):
            for name in said(["ctr", *words]).split():
                says(["ctr", words[0], "rm", *(["-f"] if words[0] == "tasks" else []), name])
        self.daemon.terminate()
        self.daemon.wait()
        self.log.close()

    def does(self, *words, code=0, **more):
        return said(["ctr", *map(str, words)], code, **more)

    def options(self, name):
        return ["--snapshotter", "native", "--runc-binary", self.host.runtime, "--cgroup", f"/{GROUP}/{name}"]

    def runs(self, name, *words, code=0, options=()):
        return self.does("run", "--rm", *self.options(name), *options, "localhost/box:1", name, *words, code=code)

    def has(self, name, *options, script=PATIENT):
        self.does("run", "--detach", *self.options(name), *options, "localhost/box:1", name, "sh", "-c", script)

    def state(self, name):
        lines = self.does("tasks", "ls").splitlines()
        return next((line.split()[2] for line in lines if line.split()[0] == name), "")

    def ends(self, name):
        says(["ctr", "tasks", "rm", "--force", name])
        self.does("containers", "rm", name)


def a_program_runs_and_its_exit_code_comes_back(it):
    same(it.runs("one", "echo", "hello"), "hello")
    it.runs("two", "sh", "-c", "exit 3", code=3)


def a_program_that_is_missing_is_an_error(it):
    all = says(["ctr", "run", "--rm", *map(str, it.options("none")), "localhost/box:1", "none", "no-such-program"])
    same(all.code, 1)
    within(all.err, "no-such-program")
    # ctr leaves a container that could not be started.
    says(["ctr", "containers", "rm", "none"])


def a_further_program_runs_in_a_container(it):
    it.has("living")
    try:
        same(it.does("tasks", "exec", "--exec-id", "first", "living", "echo", "inside"), "inside")
        it.does("tasks", "exec", "--exec-id", "second", "living", "sh", "-c", "exit 4", code=4)
        same(it.does("tasks", "exec", "--exec-id", "third", "--user", "65534", "living", "id", "-u"), "65534")
    finally:
        it.ends("living")


def a_container_is_paused_and_goes_on(it):
    it.has("paused")
    try:
        it.does("tasks", "pause", "paused")
        same(it.state("paused"), "PAUSED")
        it.does("tasks", "resume", "paused")
        same(it.state("paused"), "RUNNING")
    finally:
        it.ends("paused")


def a_container_is_stopped_by_a_signal(it):
    it.has("stopped")
    eventually(lambda: it.does("tasks", "exec", "--exec-id", f"look{os.urandom(4).hex()}", "stopped",
                               "grep", "SigCgt", "/proc/1/status")[-16:] != "0" * 16, "the trap is set")
    it.does("tasks", "kill", "--signal", "15", "stopped")
    eventually(lambda: it.state("stopped") == "STOPPED", "it ends")
    it.does("tasks", "rm", "stopped", code=0)
    it.does("containers", "rm", "stopped")


def all_processes_of_a_container_are_killed(it):
    it.has("killed", script="sleep 600 & sleep 600 & wait")
    it.does("tasks", "kill", "--all", "--signal", "9", "killed")
    eventually(lambda: it.state("killed") == "STOPPED", "it ends")
    it.ends("killed")


def limits_and_statistics_are_those_of_the_kernel(it):
    it.has("measured", "--memory-limit", str(64 << 20))
    try:
        within(it.does("tasks", "metrics", "measured"), str(64 << 20))
        within(it.does("tasks", "ps", "measured"), "PID")
    finally:
        it.ends("measured")


def a_container_can_be_privileged_or_read_only(it):
    it.runs("readonly", "sh", "-c", "touch /x 2>/dev/null", code=1, options=["--read-only"])
    status = it.runs("privileged", "grep", "CapEff", "/proc/self/status", options=["--privileged"]).split()[1]
    same(int(status, 16).bit_count() > 30, True)


def nothing_is_left(it):
    same(it.does("tasks", "ls", "-q") + it.does("containers", "ls", "-q"), "")
    same(said([str(it.host.runtime), "--root", "/run/containerd/runc/default", "list", "--quiet"]), "")
