//! The steps of a sandbox, each with its text in an error message.

use std::fmt;

/// Defines [`Step`]: each step with its documentation, and its text in an error message.
macro_rules! steps {
    ($(
        $(#[doc = $doc:literal])*
        $(#[cfg($cfg:meta)])?
        $step:ident => $text:literal,
    )*) => {
        /// A step of making, running or removing a sandbox. Most have the name of the system call
        /// or the file that does the step.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Step { $(
            $(#[doc = $doc])*
            $(#[cfg($cfg)])?
            $step,
        )* }

        impl Step {
            /// Returns the text that names the step in an error message.
            pub fn as_str(self) -> &'static str {
                match self { $(
                    $(#[cfg($cfg)])?
                    Step::$step => $text,
                )* }
            }

            /// Returns the step with this text.
            pub(crate) fn of_text(text: &str) -> Option<Step> {
                $(
                    $(#[cfg($cfg)])?
                    if text == $text {
                        return Some(Step::$step);
                    }
                )*
                None
            }
        }
    };
}

steps! {
    /// Judging the policy before anything is done.
    Validate => "validate policy",
    /// Reading or writing a [`Profile`](crate::Profile).
    #[cfg(feature = "serde")]
    Profile => "read profile",
    /// Reading the `config.json` of a bundle.
    #[cfg(feature = "oci")]
    BundleConfig => "read bundle",
    /// Reading or writing the state of a container.
    #[cfg(feature = "oci")]
    ContainerState => "keep state of container",
    /// Running a hook of a container.
    #[cfg(feature = "oci")]
    Hook => "run hook",
    /// Sending the terminal of a container to an engine.
    #[cfg(feature = "oci")]
    ConsoleSocket => "send terminal",
    /// Sending the pidfd of a container to an engine.
    #[cfg(feature = "oci")]
    PidfdSocket => "send pidfd",
    /// Moving a network interface of the host into a container.
    #[cfg(feature = "oci")]
    NetDevice => "move network interface",
    /// Finding out the abilities of the host.
    Detect => "inspect host",
    /// Starting the thread that clones.
    Spawner => "start spawner thread",
    /// Making the pipes and descriptors of the program.
    Stdio => "prepare stdio",
    /// Opening a file or directory that the policy names.
    OpenSource => "open",
    /// Registering the owner, so that `reap_stale` can tell the living from the dead.
    Owner => "register owner",
    /// Making a scratch directory.
    Scratch => "make scratch directory",
    /// Limiting what a directory takes on disk: quotactl_fd(2).
    DiskLimit => "limit disk",
    /// Making a control group.
    CreateCgroup => "create cgroup",
    /// Writing a limit.
    SetLimit => "set limit",
    /// Setting the devices that a control group may use: `bpf(2)`, or `devices.allow` and
    /// `devices.deny`.
    DeviceRules => "set device rules",
    /// Asking systemd to make a scope, or to move a process into one.
    SystemdScope => "ask systemd for a scope",
    /// Entering a control group.
    JoinCgroup => "join cgroup",
    /// `clone3(2)` or `clone(2)`.
    Clone => "clone",
    /// Executing the stub, the small program that sets the sandbox up.
    LoadStub => "execute stub",
    /// Reading the plan, in the stub.
    ReadPlan => "read plan",
    /// Writing `/proc/PID/uid_map`, `gid_map` or `setgroups`.
    WriteIdMap => "write id map",
    /// Entering a sandbox that runs, for a further program.
    Enter => "enter sandbox",
    /// Finding a sandbox again that another process has started.
    Attach => "attach to sandbox",
    /// Creating a sandbox whose program a later process starts.
    Create => "create sandbox",
    /// Starting the program of a sandbox that was created before.
    Start => "start sandbox",
    /// Removing a sandbox that was created before.
    RemoveCreated => "remove sandbox",
    /// Watching for the events of a sandbox: `inotify(7)`, `cgroup.event_control`.
    Events => "watch events",
    /// `setns(2)`.
    JoinNamespace => "setns",
    /// Holding namespaces without a process: opening their files, and binding those at paths.
    HoldNamespace => "hold namespace",
    /// `unshare(2)`.
    Unshare => "unshare",
    /// Writing `/proc/sys/user/max_user_namespaces`, or another limit of that directory.
    LimitNamespaces => "limit namespaces",
    /// Writing `/proc/self/timens_offsets`.
    TimeOffsets => "set time offsets",
    /// `sethostname(2)`.
    Hostname => "sethostname",
    /// `setdomainname(2)`.
    Domainname => "setdomainname",
    /// Bringing the loopback interface up.
    Loopback => "bring loopback up",
    /// `landlock_create_ruleset(2)`, `landlock_add_rule(2)` or `landlock_restrict_self(2)`.
    Landlock => "landlock",
    /// Making the mounts private.
    Propagation => "set propagation of mount",
    /// `open_tree(2)`: copying a mount.
    OpenTree => "open_tree",
    /// Finding, or making, the target of a mount inside the root.
    MountTarget => "find mount target",
    /// `fsopen(2)`, `fsconfig(2)`, `fsmount(2)` or `mount(2)`.
    Mount => "mount",
    /// Copying a directory of the root into a new tmpfs.
    CopyUp => "copy into tmpfs",
    /// `move_mount(2)`.
    MoveMount => "move_mount",
    /// `mount_setattr(2)`.
    MountAttr => "mount_setattr",
    /// `mount_setattr(2)` with `MOUNT_ATTR_IDMAP`.
    IdMapMount => "map ids of mount",
    /// Masking a path, or making one read-only.
    Mask => "mask",
    /// Filling `/dev`.
    Dev => "fill /dev",
    /// `pivot_root(2)`.
    PivotRoot => "pivot_root",
    /// `umount2(2)` of the host's root.
    DetachOldRoot => "detach old root",
    /// `chdir(2)` to the program's working directory.
    Cwd => "chdir",
    /// Making the terminal of the program: `pts(4)`, `ioctl_tty(2)`.
    Terminal => "make terminal",
    /// `setsid(2)` or `setpgid(2)`.
    Session => "set session",
    /// `umask(2)`.
    Umask => "umask",
    /// `prlimit(2)`.
    Rlimit => "setrlimit",
    /// Writing `/proc/self/oom_score_adj`.
    OomScoreAdj => "set oom_score_adj",
    /// `sched_setattr(2)`.
    Scheduler => "set scheduler",
    /// `ioprio_set(2)`.
    IoPriority => "set I/O priority",
    /// `sched_setaffinity(2)`.
    CpuAffinity => "set cpu affinity",
    /// `set_mempolicy(2)`.
    MemoryPolicy => "set memory policy",
    /// `personality(2)`.
    Personality => "personality",
    /// Writing a file below `/proc/sys`.
    Sysctl => "set sysctl",
    /// `setgroups(2)`.
    Groups => "setgroups",
    /// `setresgid(2)`.
    Gid => "setresgid",
    /// `setresuid(2)`.
    Uid => "setresuid",
    /// `capset(2)`, the bounding and the ambient set, securebits.
    Capabilities => "set capabilities",
    /// `prctl(PR_SET_NO_NEW_PRIVS)`.
    NoNewPrivs => "set no_new_privs",
    /// Writing `/proc/self/attr/exec` or `apparmor/exec`: the label of the program.
    Label => "set security label",
    /// `keyctl(2)`: joining a session keyring.
    Keyring => "join session keyring",
    /// `prctl(2)`: dumpable, death signal, name.
    Prctl => "prctl",
    /// Checking that the owner did not die during the setup.
    OwnerAlive => "check owner",
    /// Placing descriptors with `dup3(2)`.
    PlaceFd => "place descriptor",
    /// `close_range(2)`.
    CloseFds => "close descriptors",
    /// Restoring signal dispositions and the mask.
    Signals => "reset signals",
    /// Starting the program below the init process.
    Fork => "start program under init",
    /// `seccomp(2)`: putting the program under its filter.
    Seccomp => "install seccomp filter",
    /// Handing the listener of a filter to a supervisor in another process, over its socket.
    HandListenerOver => "hand listener over",
    /// Receiving or answering a question of a filter: `seccomp_unotify(2)`.
    Notify => "answer system call",
    /// `execve(2)` of the program.
    Exec => "exec",
    /// Waiting for the setup's report.
    Report => "wait for setup",
    /// `waitid(2)`.
    Wait => "wait",
    /// Sending a signal.
    Signal => "signal",
    /// Killing the sandbox.
    Kill => "kill",
    /// Taking result files out of a directory.
    Collect => "collect files",
    /// Listing the changes in an upper directory.
    Changes => "list the changes in an upper directory",
    /// Committing changes into the directory below.
    Commit => "commit changes",
    /// Emptying an upper directory.
    Discard => "discard changes",
    /// Reading the program's output.
    Output => "read output",
    /// Reading statistics.
    Stats => "read statistics",
    /// Reading pressure stall information, or waiting for it.
    Pressure => "watch pressure",
    /// Freezing or thawing.
    Freeze => "freeze",
    /// Removing a control group.
    RemoveCgroup => "remove cgroup",
    /// Removing a scratch directory.
    RemoveScratch => "remove scratch directory",
    /// Removing the sandboxes of dead owners.
    Reap => "reap stale sandboxes",
    /// Opening a store of images.
    #[cfg(feature = "image")]
    OpenStore => "open store",
    /// Waiting for a lock of a store: `flock(2)`.
    #[cfg(feature = "image")]
    LockStore => "lock store",
    /// Reading or changing a store's `index.json`.
    #[cfg(feature = "image")]
    ImageIndex => "index of store",
    /// Parsing the name of an image.
    #[cfg(feature = "image")]
    ImageName => "name of image",
    /// Reading a manifest or a configuration.
    #[cfg(feature = "image")]
    ImageManifest => "read manifest",
    /// Reading a blob.
    #[cfg(feature = "image")]
    ReadBlob => "read blob",
    /// Writing a blob.
    #[cfg(feature = "image")]
    WriteBlob => "write blob",
    /// Unpacking a layer.
    #[cfg(feature = "image")]
    UnpackLayer => "unpack layer",
    /// Finding the user that an image names in the image's own databases.
    #[cfg(feature = "image")]
    ImageUser => "find user of image",
    /// Writing a directory as a layer of an image.
    #[cfg(feature = "image")]
    PackLayer => "pack layer",
    /// Running a program as a step of a build.
    #[cfg(feature = "image")]
    BuildRun => "run step of build",
    /// Importing images from an archive or a directory.
    #[cfg(feature = "image")]
    ImportImage => "import image",
    /// Exporting images to an archive or a directory.
    #[cfg(feature = "image")]
    ExportImage => "export image",
    /// Removing blobs and layers that no image of a store needs.
    #[cfg(feature = "image")]
    PruneStore => "prune store",
    /// Preparing for a registry: names, certificates, threads.
    #[cfg(feature = "registry")]
    Registry => "prepare for registry",
    /// Reading the login for a registry.
    #[cfg(feature = "registry")]
    Credentials => "read credentials",
    /// Getting a token for a registry.
    #[cfg(feature = "registry")]
    Authenticate => "authenticate",
    /// Getting a manifest or an index from a registry.
    #[cfg(feature = "registry")]
    PullManifest => "pull manifest",
    /// Getting a layer or a configuration from a registry.
    #[cfg(feature = "registry")]
    PullBlob => "pull blob",
    /// Sending a layer or a configuration to a registry.
    #[cfg(feature = "registry")]
    PushBlob => "push blob",
    /// Sending a manifest or an index to a registry.
    #[cfg(feature = "registry")]
    PushManifest => "push manifest",
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
