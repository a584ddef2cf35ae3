"""buildah, whose RUN goes through the runtime."""

import os

import on_podman
from harness import GROUP, said, same, within


class Engine(on_podman.Engine):
    """buildah with a store of its own."""

    def __init__(self, host):
        super().__init__(host)
        self.dir = host.work / "buildah"

    def __enter__(self):
        self.dir.mkdir()
        self.configure()
        self.user["env"].update(BUILDAH_ISOLATION="oci")
        self.does("pull", f"oci-archive:{self.host.image}")
        return self

    def __exit__(self, *_):
        self.does("rm", "--all")
        self.does("rmi", "--all", "--force")

    def words(self, command, *words):
        of_build = ["--runtime", self.host.runtime, "--cgroup-parent", f"/{GROUP}/buildah", "--network", "none"]
        limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096"]
        more = [*of_build, *limits] if command == "build" else []
        return ["buildah", command, *map(str, [*more, *words])]


def an_image_is_built_from_a_file(it):
    context = it.dir / "context"
    context.mkdir()
    (context / "there").write_text("copied")
    (context / "Containerfile").write_text("""
FROM localhost/box:1
COPY there /there
RUN cat /there > /made && id -u >> /made
USER 65534
RUN id -u > /tmp/by
CMD ["cat", "/made", "/tmp/by"]
""")
    it.does("build", "--tag", "built:1", context)
    container = it.does("from", "built:1")
    same(it.does("run", "--runtime", it.host.runtime, "--network", "none", container, "--", "cat", "/made", "/tmp/by").split(),
         ["copied0", "65534"])


def a_step_that_fails_is_told(it):
    context = it.dir / "failing"
    context.mkdir()
    (context / "Containerfile").write_text("FROM localhost/box:1\nRUN exit 7\n")
    within(it.does("build", context, code=7) + "7", "7")


def nothing_is_left(it):
    same(said([str(it.host.runtime), "list", "--quiet"]), "")
    same([name for name in os.listdir("/run/ringfence-oci")] if os.path.exists("/run/ringfence-oci") else [], [])
