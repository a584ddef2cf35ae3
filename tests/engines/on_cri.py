"""Kubernetes' Container Runtime Interface, as containerd serves it, with the runtime behind a runtime handler."""

import importlib
import os
import subprocess
import sys

import on_containerd
from harness import GROUP, Failure, eventually, same, within

PATIENT = "trap 'exit 5' TERM; echo ready; while :; do sleep 0.1; done"
# The states of pods and containers.
READY, NOT_READY = 0, 1
CREATED, RUNNING, EXITED = 0, 1, 2
# The kind of a seccomp profile.
RUNTIME_DEFAULT = 0
# The kinds of namespaces.
POD, CONTAINER, NODE = 0, 1, 2


class Engine(on_containerd.Engine):
    """A client of containerd's CRI service."""

    def __enter__(self):
        super().__enter__()
        here = os.path.dirname(os.path.abspath(__file__))
        subprocess.run(["protoc", f"--proto_path={here}", f"--python_out={self.dir}", "cri.proto"], check=True)
        sys.path.insert(0, str(self.dir))
        self.types = importlib.import_module("cri_pb2")
        import grpc

        self.channel = grpc.insecure_channel("unix:///run/containerd/containerd.sock")
        self.errors = grpc.RpcError
        self.logs = self.dir / "logs"
        self.logs.mkdir(exist_ok=True)
        self.pods = []
        return self

    def __exit__(self, *problem):
        for pod in self.pods:
            self.call("StopPodSandbox", "Empty", self.types.PodSandboxRequest(pod_sandbox_id=pod))
            self.call("RemovePodSandbox", "Empty", self.types.PodSandboxRequest(pod_sandbox_id=pod))
        self.channel.close()
        super().__exit__(*problem)

    def call(self, name, answer, request):
        call = self.channel.unary_unary(f"/runtime.v1.RuntimeService/{name}",
                                        request_serializer=type(request).SerializeToString,
                                        response_deserializer=getattr(self.types, answer).FromString)
        return call(request, timeout=60)

    def config(self, name, network=POD, pid=CONTAINER, sysctls=()):
        types = self.types
        options = types.NamespaceOption(network=network, pid=pid)
        linux = types.LinuxPodSandboxConfig(cgroup_parent=f"/{GROUP}/{name}", sysctls=dict(sysctls),
            security_context=types.LinuxSandboxSecurityContext(namespace_options=options))
        return types.PodSandboxConfig(metadata=types.PodSandboxMetadata(name=name, uid=name, namespace="default"),
                                      hostname=name, log_directory=str(self.logs), linux=linux)

    def pod(self, config):
        request = self.types.RunPodSandboxRequest(config=config, runtime_handler="ringfence")
        pod = self.call("RunPodSandbox", "RunPodSandboxResponse", request).pod_sandbox_id
        self.pods.append(pod)
        return pod

    def ends(self, pod):
        request = self.types.PodSandboxRequest(pod_sandbox_id=pod)
        self.call("StopPodSandbox", "Empty", request)
        same(self.call("PodSandboxStatus", "PodSandboxStatusResponse", request).status.state, NOT_READY)
        self.call("RemovePodSandbox", "Empty", request)
        self.pods.remove(pod)

    def create(self, pod, config, name, script=PATIENT, security=None, resources=None, **more):
        types = self.types
        security = security or {}
        linux = types.LinuxContainerConfig(resources=types.LinuxContainerResources(**(resources or {})),
                                           security_context=types.LinuxContainerSecurityContext(**security))
        container = types.ContainerConfig(metadata=types.ContainerMetadata(name=name), command=["sh", "-c", script],
            image=types.ImageSpec(image="localhost/box:1"), log_path=f"{name}.log", linux=linux, **more)
        request = types.CreateContainerRequest(pod_sandbox_id=pod, config=container, sandbox_config=config)
        return self.call("CreateContainer", "CreateContainerResponse", request).container_id

    def start(self, container):
        self.call("StartContainer", "Empty", self.types.ContainerRequest(container_id=container))

    def runs(self, *about, **more):
        container = self.create(*about, **more)
        self.start(container)
        return container

    def status(self, container):
        request = self.types.ContainerRequest(container_id=container)
        return self.call("ContainerStatus", "ContainerStatusResponse", request).status

    def code(self, container):
        """Waits for a container, and returns its exit code."""
        eventually(lambda: self.status(container).state == EXITED, "the container ends")
        return self.status(container).exit_code

    def exec(self, container, *words, timeout=0):
        request = self.types.ExecSyncRequest(container_id=container, cmd=words, timeout=timeout)
        return self.call("ExecSync", "ExecSyncResponse", request)

    def inside(self, container, *words):
        answer = self.exec(container, *words)
        if answer.exit_code:
            raise Failure(f"{words}: {answer}")
        return answer.stdout.decode().strip()

    def said_by(self, name):
        lines = (self.logs / f"{name}.log").read_text().splitlines()
        return "\n".join(line.split(" ", 3)[3] for line in lines)


def the_service_and_its_networks_are_ready(it):
    status = it.call("Status", "StatusResponse", it.types.StatusRequest()).status
    same({one.type: one.status for one in status.conditions}, {"RuntimeReady": True, "NetworkReady": True})


def a_pod_has_an_address_and_its_handler(it):
    config = it.config("address")
    pod = it.pod(config)
    status = it.call("PodSandboxStatus", "PodSandboxStatusResponse", it.types.PodSandboxRequest(pod_sandbox_id=pod)).status
    same((status.state, status.runtime_handler), (READY, "ringfence"))
    within(status.network.ip, "10.89.7.")
    it.ends(pod)


def a_container_runs_and_its_log_and_exit_code_are_kept(it):
    config = it.config("short")
    pod = it.pod(config)
    envs = [it.types.KeyValue(key="A", value="b")]
    container = it.runs(pod, config, "short", script="echo $A; hostname; exit 3", envs=envs)
    same((it.code(container), it.said_by("short")), (3, "b\nshort"))
    it.ends(pod)


def containers_of_a_pod_share_its_network(it):
    config = it.config("shared")
    pod = it.pod(config)
    apart = {"namespace_options": it.types.NamespaceOption(pid=CONTAINER)}
    one, two = (it.runs(pod, config, name, security=apart) for name in ("shared1", "shared2"))
    names = ("/proc/self/ns/net", "/proc/self/ns/ipc", "/proc/self/ns/uts")
    same(it.inside(one, "readlink", *names), it.inside(two, "readlink", *names))
    same(it.inside(one, "readlink", "/proc/self/ns/pid") != it.inside(two, "readlink", "/proc/self/ns/pid"), True)
    it.ends(pod)


def containers_of_a_pod_may_share_its_processes(it):
    config = it.config("processes", pid=POD)
    pod = it.pod(config)
    security = {"namespace_options": it.types.NamespaceOption(pid=POD)}
    one, two = (it.runs(pod, config, name, security=security) for name in ("processes1", "processes2"))
    same(it.inside(one, "readlink", "/proc/self/ns/pid"), it.inside(two, "readlink", "/proc/self/ns/pid"))
    within(it.inside(one, "ps", "-e"), "sleep")
    it.ends(pod)


def a_pod_may_have_the_nodes_network(it):
    config = it.config("node", network=NODE)
    # The kubelet names no host for such a pod.
    config.hostname = ""
    pod = it.pod(config)
    security = {"namespace_options": it.types.NamespaceOption(network=NODE)}
    container = it.runs(pod, config, "node", security=security)
    same(it.inside(container, "readlink", "/proc/self/ns/net"), os.readlink("/proc/self/ns/net"))
    it.ends(pod)


def a_further_program_runs_and_its_end_is_told(it):
    config = it.config("exec")
    pod = it.pod(config)
    container = it.runs(pod, config, "exec")
    same(it.inside(container, "echo", "inside"), "inside")
    same(it.exec(container, "sh", "-c", "echo bad >&2; exit 4").exit_code, 4)
    try:
        it.exec(container, "sleep", "600", timeout=1)
        raise Failure("the program was not ended")
    except it.errors as error:
        within(error.details(), "timeout")
    it.ends(pod)


def a_container_is_stopped_by_its_signal_or_after_the_grace(it):
    config = it.config("stop")
    pod = it.pod(config)
    kind = it.runs(pod, config, "kind")
    eventually(lambda: it.said_by("kind") == "ready", "its trap is set")
    it.call("StopContainer", "Empty", it.types.StopContainerRequest(container_id=kind, timeout=60))
    same(it.code(kind), 5)
    deaf = it.runs(pod, config, "deaf", script="trap '' TERM; echo ready; while :; do sleep 0.1; done")
    eventually(lambda: it.said_by("deaf") == "ready", "its trap is set")
    it.call("StopContainer", "Empty", it.types.StopContainerRequest(container_id=deaf, timeout=1))
    same(it.code(deaf), 137)
    it.call("RemoveContainer", "Empty", it.types.ContainerRequest(container_id=deaf))
    it.ends(pod)


def the_security_context_reaches_the_kernel(it):
    config = it.config("secure")
    pod = it.pod(config)
    types = it.types
    security = {"run_as_user": types.Int64Value(value=65534), "readonly_rootfs": True, "no_new_privs": True,
                "capabilities": types.Capability(drop_capabilities=["ALL"]),
                "masked_paths": ["/proc/timer_list"], "readonly_paths": ["/proc/sys"],
                "seccomp": types.SecurityProfile(profile_type=RUNTIME_DEFAULT)}
    container = it.runs(pod, config, "secure", security=security)
    status = dict(line.split(":\t", 1) for line in it.inside(container, "cat", "/proc/self/status").splitlines() if ":\t" in line)
    same([status["CapBnd"], status["NoNewPrivs"], status["Seccomp"], status["Uid"].split()[0]], ["0" * 16, "1", "2", "65534"])
    same(it.exec(container, "touch", "/x").exit_code, 1)
    same(it.inside(container, "cat", "/proc/timer_list"), "")
    it.ends(pod)


def a_privileged_container_has_all_rights_and_devices(it):
    config = it.config("privileged")
    config.linux.security_context.privileged = True
    pod = it.pod(config)
    container = it.runs(pod, config, "privileged", security={"privileged": True})
    same(int(it.inside(container, "grep", "CapEff", "/proc/self/status").split()[1], 16).bit_count() > 30, True)
    same(it.inside(container, "stat", "-c", "%t:%T", "/dev/kmsg"), "1:b")
    it.ends(pod)


def limits_and_statistics_are_those_of_the_kernel(it):
    config = it.config("limits")
    pod = it.pod(config)
    container = it.runs(pod, config, "limits", resources={"memory_limit_in_bytes": 64 << 20, "cpu_period": 100000,
                                                          "cpu_quota": 50000, "cpu_shares": 512})
    limit = "/sys/fs/cgroup/memory/memory.limit_in_bytes"
    same(it.inside(container, "cat", limit), str(64 << 20))
    more = it.types.LinuxContainerResources(memory_limit_in_bytes=128 << 20)
    it.call("UpdateContainerResources", "Empty",
            it.types.UpdateContainerResourcesRequest(container_id=container, linux=more))
    same(it.inside(container, "cat", limit), str(128 << 20))
    stats = it.call("ContainerStats", "ContainerStatsResponse", it.types.ContainerRequest(container_id=container)).stats
    same(stats.memory.working_set_bytes.value > 0, True)
    greedy = it.runs(pod, config, "greedy", script="exec dd if=/dev/zero of=/dev/null bs=256M count=1",
                     resources={"memory_limit_in_bytes": 32 << 20})
    same((it.code(greedy), it.status(greedy).reason), (137, "OOMKilled"))
    it.ends(pod)


def files_of_the_node_are_mounted(it):
    config = it.config("mounts", sysctls={"net.ipv4.ip_forward": "1"})
    pod = it.pod(config)
    there = it.dir / "there"
    there.mkdir(exist_ok=True)
    (there / "file").write_text("shared")
    mounts = [it.types.Mount(container_path="/v", host_path=str(there), readonly=True)]
    container = it.runs(pod, config, "mounts", mounts=mounts)
    same(it.inside(container, "cat", "/v/file", "/proc/sys/net/ipv4/ip_forward"), "shared1")
    same(it.exec(container, "touch", "/v/x").exit_code, 1)
    it.ends(pod)


def a_program_that_is_missing_is_an_error_of_the_start(it):
    config = it.config("missing")
    pod = it.pod(config)
    try:
        types = it.types
        container = it.create(pod, config, "missing", script="")
        request = types.ContainerConfig(metadata=types.ContainerMetadata(name="none"), command=["no-such-program"],
                                        image=types.ImageSpec(image="localhost/box:1"), log_path="none.log")
        none = it.call("CreateContainer", "CreateContainerResponse",
                       types.CreateContainerRequest(pod_sandbox_id=pod, config=request, sandbox_config=config)).container_id
        it.start(none)
        raise Failure(f"it was started beside {container}")
    except it.errors as error:
        within(error.details(), "no-such-program")
    it.ends(pod)


def nothing_is_left(it):
    same(it.pods, [])
    for _, _, files in os.walk(it.dir / "leases"):
        same([name for name in files if name.startswith("10.")], [])
