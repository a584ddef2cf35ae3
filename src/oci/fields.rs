//! Every property of the specification, and what becomes of it.
//!
//! The list of properties comes from the types themselves: a new one of theirs, without a row here,
//! makes the test fail. A row proves itself: what is carried out changes the sandbox, and what is
//! refused is refused by its own path.

use std::cell::RefCell;
use std::collections::BTreeSet;

use oci_spec::runtime::Spec;
use serde::de::value::{Error, StrDeserializer, StringDeserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess, SeqAccess, VariantAccess,
    Visitor,
};
use serde_json::{Value, json};

use super::config::Config;
use super::translate::{Surroundings, Translation};

/// The fate of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The sandbox, the group or the hooks are others with it.
    Carried,
    /// It is refused by its path.
    Refused,
    /// The specification gives it no effect on the container's first process.
    NoEffect,
}
use Fate::{Carried, NoEffect, Refused};

/// A property with two configurations that differ in it, as patches of the plain one. In what is
/// refused the second one has it.
type Row = (&'static str, Fate, &'static str, &'static str);

const PLAIN: &str = r#"{
    "ociVersion": "1.3.0",
    "root": {"path": "."},
    "process": {"user": {"uid": 0, "gid": 0}, "args": ["id"], "cwd": "/"},
    "linux": {"namespaces": [{"type": "mount"}]}
}"#;

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("ociVersion", Refused, "{}", r#"{"ociVersion": "2.0.0"}"#),
    ("annotations", NoEffect, "{}", r#"{"annotations": {"a": "b"}}"#),
    ("solaris", Refused, "{}", r#"{"solaris": {}}"#),
    ("windows", Refused, "{}", r#"{"windows": {"layerFolders": ["a"]}}"#),
    ("vm", Refused, "{}", r#"{"vm": {"kernel": {"path": "/k"}}}"#),
    ("zos", Refused, "{}", r#"{"zos": {}}"#),
    ("uidMappings", Refused, "{}", r#"{"uidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}"#),
    ("gidMappings", Refused, "{}", r#"{"gidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}"#),
    ("hostname", Carried, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}}"#,
        r#"{"hostname": "a", "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}}"#),
    ("domainname", Carried, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}}"#,
        r#"{"domainname": "a", "linux": {"namespaces": [{"type": "mount"}, {"type": "uts"}]}}"#),

    ("root.path", Carried, "{}", r#"{"root": {"path": "proc"}}"#),
    ("root.readonly", Carried, "{}", r#"{"root": {"readonly": true}}"#),
    ("mounts[].destination", Carried, r#"{"mounts": [{"destination": "/a", "type": "tmpfs"}]}"#,
        r#"{"mounts": [{"destination": "/b", "type": "tmpfs"}]}"#),
    ("mounts[].type", Carried, r#"{"mounts": [{"destination": "/a", "type": "tmpfs", "source": "x"}]}"#,
        r#"{"mounts": [{"destination": "/a", "type": "ramfs", "source": "x"}]}"#),
    ("mounts[].source", Carried, r#"{"mounts": [{"destination": "/a", "type": "tmpfs"}]}"#,
        r#"{"mounts": [{"destination": "/a", "type": "tmpfs", "source": "x"}]}"#),
    ("mounts[].options", Carried, r#"{"mounts": [{"destination": "/a", "type": "tmpfs"}]}"#,
        r#"{"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["nosuid"]}]}"#),
    ("mounts[].uidMappings", Carried,
        r#"{"mounts": [{"destination": "/a", "source": "/", "options": ["bind", "idmap"], "uidMappings": [{"hostID": 1, "containerID": 0, "size": 1}], "gidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}]}"#,
        r#"{"mounts": [{"destination": "/a", "source": "/", "options": ["bind", "idmap"], "uidMappings": [{"hostID": 2, "containerID": 0, "size": 1}], "gidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}]}"#),
    ("mounts[].gidMappings", Carried,
        r#"{"mounts": [{"destination": "/a", "source": "/", "options": ["bind", "idmap"], "uidMappings": [{"hostID": 1, "containerID": 0, "size": 1}], "gidMappings": [{"hostID": 1, "containerID": 0, "size": 1}]}]}"#,
        r#"{"mounts": [{"destination": "/a", "source": "/", "options": ["bind", "idmap"], "uidMappings": [{"hostID": 1, "containerID": 0, "size": 1}], "gidMappings": [{"hostID": 2, "containerID": 0, "size": 1}]}]}"#),

    ("process.terminal", Carried, "{}", r#"{"process": {"terminal": true}}"#),
    ("process.consoleSize", Carried, r#"{"process": {"terminal": true}}"#,
        r#"{"process": {"terminal": true, "consoleSize": {"height": 1, "width": 1}}}"#),
    ("process.user.uid", Carried, "{}", r#"{"process": {"user": {"uid": 7}}}"#),
    ("process.user.gid", Carried, "{}", r#"{"process": {"user": {"gid": 7}}}"#),
    ("process.user.umask", Carried, "{}", r#"{"process": {"user": {"umask": 7}}}"#),
    ("process.user.additionalGids", Carried, "{}", r#"{"process": {"user": {"additionalGids": [7]}}}"#),
    ("process.user.username", Refused, "{}", r#"{"process": {"user": {"username": "a"}}}"#),
    ("process.args", Carried, "{}", r#"{"process": {"args": ["id", "-u"]}}"#),
    ("process.commandLine", Refused, "{}", r#"{"process": {"commandLine": "a"}}"#),
    ("process.env", Carried, "{}", r#"{"process": {"env": ["A=b"]}}"#),
    ("process.cwd", Carried, "{}", r#"{"process": {"cwd": "/a"}}"#),
    ("process.capabilities.bounding", Carried, "{}", r#"{"process": {"capabilities": {"bounding": ["CAP_CHOWN"]}}}"#),
    ("process.capabilities.permitted", Carried, "{}", r#"{"process": {"capabilities": {"permitted": ["CAP_CHOWN"]}}}"#),
    ("process.capabilities.inheritable", Carried, r#"{"process": {"capabilities": {"bounding": ["CAP_CHOWN"]}}}"#,
        r#"{"process": {"capabilities": {"bounding": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"]}}}"#),
    ("process.capabilities.effective", Carried, r#"{"process": {"capabilities": {"permitted": ["CAP_CHOWN"]}}}"#,
        r#"{"process": {"capabilities": {"permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]}}}"#),
    ("process.capabilities.ambient", Carried,
        r#"{"process": {"capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"]}}}"#,
        r#"{"process": {"capabilities": {"bounding": ["CAP_CHOWN"], "permitted": ["CAP_CHOWN"], "inheritable": ["CAP_CHOWN"], "ambient": ["CAP_CHOWN"]}}}"#),
    ("process.rlimits[].type", Carried, r#"{"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}]}}"#,
        r#"{"process": {"rlimits": [{"type": "RLIMIT_CORE", "soft": 1, "hard": 2}]}}"#),
    ("process.rlimits[].soft", Carried, r#"{"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}]}}"#,
        r#"{"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 2}]}}"#),
    ("process.rlimits[].hard", Carried, r#"{"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 2}]}}"#,
        r#"{"process": {"rlimits": [{"type": "RLIMIT_CPU", "soft": 1, "hard": 3}]}}"#),
    ("process.noNewPrivileges", Carried, "{}", r#"{"process": {"noNewPrivileges": true}}"#),
    ("process.apparmorProfile", Carried, "{}", r#"{"process": {"apparmorProfile": "a"}}"#),
    ("process.selinuxLabel", Carried, "{}", r#"{"process": {"selinuxLabel": "a"}}"#),
    ("process.oomScoreAdj", Carried, "{}", r#"{"process": {"oomScoreAdj": 7}}"#),
    ("process.ioPriority.class", Carried, r#"{"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}}}"#,
        r#"{"process": {"ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 1}}}"#),
    ("process.ioPriority.priority", Carried, r#"{"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 1}}}"#,
        r#"{"process": {"ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 2}}}"#),
    ("process.scheduler.policy", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_OTHER"}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_BATCH"}}}"#),
    ("process.scheduler.nice", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_OTHER"}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_OTHER", "nice": 7}}}"#),
    ("process.scheduler.priority", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": 1}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_FIFO", "priority": 2}}}"#),
    ("process.scheduler.flags", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_OTHER"}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_OTHER", "flags": ["SCHED_RESET_ON_FORK"]}}}"#),
    ("process.scheduler.runtime", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 3000, "deadline": 4000}}}"#),
    ("process.scheduler.deadline", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 5000}}}"#),
    ("process.scheduler.period", Carried, r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000}}}"#,
        r#"{"process": {"scheduler": {"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 4000, "period": 5000}}}"#),
    ("process.execCPUAffinity", NoEffect, "{}", r#"{"process": {"execCPUAffinity": {"initial": "0", "final": "0"}}}"#),

    ("hooks.prestart[].path", Carried, r#"{"hooks": {"prestart": [{"path": "/a"}]}}"#, r#"{"hooks": {"prestart": [{"path": "/b"}]}}"#),
    ("hooks.prestart[].args", Carried, r#"{"hooks": {"prestart": [{"path": "/a"}]}}"#, r#"{"hooks": {"prestart": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.prestart[].env", Carried, r#"{"hooks": {"prestart": [{"path": "/a"}]}}"#, r#"{"hooks": {"prestart": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.prestart[].timeout", Carried, r#"{"hooks": {"prestart": [{"path": "/a"}]}}"#, r#"{"hooks": {"prestart": [{"path": "/a", "timeout": 1}]}}"#),
    ("hooks.createRuntime[].path", Carried, r#"{"hooks": {"createRuntime": [{"path": "/a"}]}}"#, r#"{"hooks": {"createRuntime": [{"path": "/b"}]}}"#),
    ("hooks.createRuntime[].args", Carried, r#"{"hooks": {"createRuntime": [{"path": "/a"}]}}"#, r#"{"hooks": {"createRuntime": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.createRuntime[].env", Carried, r#"{"hooks": {"createRuntime": [{"path": "/a"}]}}"#, r#"{"hooks": {"createRuntime": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.createRuntime[].timeout", Carried, r#"{"hooks": {"createRuntime": [{"path": "/a"}]}}"#, r#"{"hooks": {"createRuntime": [{"path": "/a", "timeout": 1}]}}"#),
    ("hooks.createContainer[].path", Carried, r#"{"hooks": {"createContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"createContainer": [{"path": "/b"}]}}"#),
    ("hooks.createContainer[].args", Carried, r#"{"hooks": {"createContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"createContainer": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.createContainer[].env", Carried, r#"{"hooks": {"createContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"createContainer": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.createContainer[].timeout", Carried, r#"{"hooks": {"createContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"createContainer": [{"path": "/a", "timeout": 1}]}}"#),
    ("hooks.startContainer[].path", Carried, r#"{"hooks": {"startContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"startContainer": [{"path": "/b"}]}}"#),
    ("hooks.startContainer[].args", Carried, r#"{"hooks": {"startContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"startContainer": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.startContainer[].env", Carried, r#"{"hooks": {"startContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"startContainer": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.startContainer[].timeout", Carried, r#"{"hooks": {"startContainer": [{"path": "/a"}]}}"#, r#"{"hooks": {"startContainer": [{"path": "/a", "timeout": 1}]}}"#),
    ("hooks.poststart[].path", Carried, r#"{"hooks": {"poststart": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststart": [{"path": "/b"}]}}"#),
    ("hooks.poststart[].args", Carried, r#"{"hooks": {"poststart": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststart": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.poststart[].env", Carried, r#"{"hooks": {"poststart": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststart": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.poststart[].timeout", Carried, r#"{"hooks": {"poststart": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststart": [{"path": "/a", "timeout": 1}]}}"#),
    ("hooks.poststop[].path", Carried, r#"{"hooks": {"poststop": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststop": [{"path": "/b"}]}}"#),
    ("hooks.poststop[].args", Carried, r#"{"hooks": {"poststop": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststop": [{"path": "/a", "args": ["a"]}]}}"#),
    ("hooks.poststop[].env", Carried, r#"{"hooks": {"poststop": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststop": [{"path": "/a", "env": ["A=b"]}]}}"#),
    ("hooks.poststop[].timeout", Carried, r#"{"hooks": {"poststop": [{"path": "/a"}]}}"#, r#"{"hooks": {"poststop": [{"path": "/a", "timeout": 1}]}}"#),

    ("linux.netDevices", Carried, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}]}}"#,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "netDevices": {"eth0": {}}}}"#),
    ("linux.netDevices.*.name", Carried,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "netDevices": {"eth0": {}}}}"#,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "network"}], "netDevices": {"eth0": {"name": "a"}}}}"#),
    ("linux.uidMappings[].hostID", Carried, USER, USER_OF_ANOTHER_UID),
    ("linux.uidMappings[].containerID", Carried, USER, USER_OF_ANOTHER_UID_INSIDE),
    ("linux.uidMappings[].size", Carried, USER, USER_OF_MORE_UIDS),
    ("linux.gidMappings[].hostID", Carried, USER, USER_OF_ANOTHER_GID),
    ("linux.gidMappings[].containerID", Carried, USER, USER_OF_ANOTHER_GID_INSIDE),
    ("linux.gidMappings[].size", Carried, USER, USER_OF_MORE_GIDS),
    ("linux.sysctl", Carried, "{}", r#"{"linux": {"sysctl": {"net.ipv4.ip_forward": "1"}}}"#),
    ("linux.cgroupsPath", Carried, "{}", r#"{"linux": {"cgroupsPath": "/a"}}"#),
    ("linux.namespaces[].type", Carried, "{}", r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}"#),
    ("linux.namespaces[].path", Carried, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}"#,
        r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "pid", "path": "/proc/1/ns/pid"}]}}"#),
    ("linux.devices[].path", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/b", "type": "c", "major": 1, "minor": 1}]}}"#),
    ("linux.devices[].type", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "b", "major": 1, "minor": 1}]}}"#),
    ("linux.devices[].major", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 2, "minor": 1}]}}"#),
    ("linux.devices[].minor", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 2}]}}"#),
    ("linux.devices[].fileMode", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1, "fileMode": 384}]}}"#),
    ("linux.devices[].uid", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1, "uid": 7}]}}"#),
    ("linux.devices[].gid", Carried, r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1}]}}"#,
        r#"{"linux": {"devices": [{"path": "/dev/a", "type": "c", "major": 1, "minor": 1, "gid": 7}]}}"#),
    ("linux.seccomp.defaultAction", Carried, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW"}}}"#,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}"#),
    ("linux.seccomp.defaultErrnoRet", Carried, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}"#,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 7}}}"#),
    ("linux.seccomp.architectures", Carried, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}"#,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"]}}}"#),
    ("linux.seccomp.flags", Carried, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO"}}}"#,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}}}"#),
    ("linux.seccomp.listenerPath", Carried, ASKS,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/b", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}}}"#),
    ("linux.seccomp.listenerMetadata", Carried, ASKS,
        r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "listenerMetadata": "m", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}}}"#),
    ("linux.seccomp.syscalls[].names", Carried, ASKED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["socket"], "action": "SCMP_ACT_ERRNO"}]}}}"#),
    ("linux.seccomp.syscalls[].action", Carried, ASKED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_TRAP"}]}}}"#),
    ("linux.seccomp.syscalls[].errnoRet", Carried, ASKED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7}]}}}"#),
    ("linux.seccomp.syscalls[].args[].index", Carried, COMPARED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 1, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}}}"#),
    ("linux.seccomp.syscalls[].args[].value", Carried, COMPARED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 3, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}}}"#),
    ("linux.seccomp.syscalls[].args[].valueTwo", Carried, COMPARED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}]}}}"#),
    ("linux.seccomp.syscalls[].args[].op", Carried, COMPARED, r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_NE"}]}]}}}"#),
    ("linux.rootfsPropagation", Carried, "{}", r#"{"linux": {"rootfsPropagation": "rshared"}}"#),
    ("linux.maskedPaths", Carried, "{}", r#"{"linux": {"maskedPaths": ["/a"]}}"#),
    ("linux.readonlyPaths", Carried, "{}", r#"{"linux": {"readonlyPaths": ["/a"]}}"#),
    ("linux.mountLabel", Refused, "{}", r#"{"linux": {"mountLabel": "a"}}"#),
    ("linux.intelRdt", Refused, "{}", r#"{"linux": {"intelRdt": {"closID": "a"}}}"#),
    ("linux.personality.domain", Carried, r#"{"linux": {"personality": {"domain": "LINUX"}}}"#, r#"{"linux": {"personality": {"domain": "LINUX32"}}}"#),
    ("linux.personality.flags", Refused, "{}", r#"{"linux": {"personality": {"domain": "LINUX", "flags": ["a"]}}}"#),
    ("linux.memoryPolicy.mode", Carried, r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}}"#, r#"{"linux": {"memoryPolicy": {"mode": "MPOL_INTERLEAVE", "nodes": "0"}}}"#),
    ("linux.memoryPolicy.nodes", Carried, r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}}"#, r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1"}}}"#),
    ("linux.memoryPolicy.flags", Carried, r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0"}}}"#,
        r#"{"linux": {"memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}}}"#),
    ("linux.timeOffsets.*.secs", Carried, TIME, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}], "timeOffsets": {"boottime": {"secs": 7}}}}"#),
    ("linux.timeOffsets.*.nanosecs", Carried, TIME, r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}], "timeOffsets": {"boottime": {"nanosecs": 7}}}}"#),

    ("linux.resources.devices[].allow", Carried, RULE, r#"{"linux": {"resources": {"devices": [{"allow": false, "type": "c", "major": 9, "minor": 9, "access": "r"}]}}}"#),
    ("linux.resources.devices[].type", Carried, RULE, r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "b", "major": 9, "minor": 9, "access": "r"}]}}}"#),
    ("linux.resources.devices[].major", Carried, RULE, r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 8, "minor": 9, "access": "r"}]}}}"#),
    ("linux.resources.devices[].minor", Carried, RULE, r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 9, "minor": 8, "access": "r"}]}}}"#),
    ("linux.resources.devices[].access", Carried, RULE, r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 9, "minor": 9, "access": "w"}]}}}"#),
    ("linux.resources.memory.limit", Carried, "{}", r#"{"linux": {"resources": {"memory": {"limit": 7}}}}"#),
    ("linux.resources.memory.reservation", Carried, "{}", r#"{"linux": {"resources": {"memory": {"reservation": 7}}}}"#),
    ("linux.resources.memory.swap", Carried, "{}", r#"{"linux": {"resources": {"memory": {"swap": 7}}}}"#),
    ("linux.resources.memory.kernel", Refused, "{}", r#"{"linux": {"resources": {"memory": {"kernel": 7}}}}"#),
    ("linux.resources.memory.kernelTCP", Refused, "{}", r#"{"linux": {"resources": {"memory": {"kernelTCP": 7}}}}"#),
    ("linux.resources.memory.swappiness", Carried, "{}", r#"{"linux": {"resources": {"memory": {"swappiness": 7}}}}"#),
    ("linux.resources.memory.disableOOMKiller", Carried, "{}", r#"{"linux": {"resources": {"memory": {"disableOOMKiller": true}}}}"#),
    ("linux.resources.memory.useHierarchy", Refused, "{}", r#"{"linux": {"resources": {"memory": {"useHierarchy": false}}}}"#),
    ("linux.resources.memory.checkBeforeUpdate", Refused, "{}", r#"{"linux": {"resources": {"memory": {"checkBeforeUpdate": true}}}}"#),
    ("linux.resources.cpu.shares", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"shares": 7}}}}"#),
    ("linux.resources.cpu.quota", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"quota": 7000}}}}"#),
    ("linux.resources.cpu.period", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"period": 7000}}}}"#),
    ("linux.resources.cpu.burst", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"burst": 7}}}}"#),
    ("linux.resources.cpu.idle", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"idle": 1}}}}"#),
    ("linux.resources.cpu.realtimeRuntime", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"realtimeRuntime": 7}}}}"#),
    ("linux.resources.cpu.realtimePeriod", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"realtimePeriod": 7}}}}"#),
    ("linux.resources.cpu.cpus", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"cpus": "0"}}}}"#),
    ("linux.resources.cpu.mems", Carried, "{}", r#"{"linux": {"resources": {"cpu": {"mems": "0"}}}}"#),
    ("linux.resources.pids.limit", Carried, "{}", r#"{"linux": {"resources": {"pids": {"limit": 7}}}}"#),
    ("linux.resources.blockIO.weight", Carried, "{}", r#"{"linux": {"resources": {"blockIO": {"weight": 70}}}}"#),
    ("linux.resources.blockIO.leafWeight", Refused, "{}", r#"{"linux": {"resources": {"blockIO": {"leafWeight": 70}}}}"#),
    ("linux.resources.blockIO.weightDevice[].major", Carried, r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 70}]}}}}"#,
        r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 9, "minor": 0, "weight": 70}]}}}}"#),
    ("linux.resources.blockIO.weightDevice[].minor", Carried, r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 70}]}}}}"#,
        r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 1, "weight": 70}]}}}}"#),
    ("linux.resources.blockIO.weightDevice[].weight", Carried, r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 70}]}}}}"#,
        r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 71}]}}}}"#),
    ("linux.resources.blockIO.weightDevice[].leafWeight", Refused, "{}",
        r#"{"linux": {"resources": {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 71}]}}}}"#),
    ("linux.resources.hugepageLimits[].pageSize", Carried, r#"{"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 7}]}}}"#,
        r#"{"linux": {"resources": {"hugepageLimits": [{"pageSize": "1GB", "limit": 7}]}}}"#),
    ("linux.resources.hugepageLimits[].limit", Carried, r#"{"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 7}]}}}"#,
        r#"{"linux": {"resources": {"hugepageLimits": [{"pageSize": "2MB", "limit": 8}]}}}"#),
    ("linux.resources.network.classID", Carried, "{}", r#"{"linux": {"resources": {"network": {"classID": 7}}}}"#),
    ("linux.resources.network.priorities[].name", Carried, r#"{"linux": {"resources": {"network": {"priorities": [{"name": "a", "priority": 7}]}}}}"#,
        r#"{"linux": {"resources": {"network": {"priorities": [{"name": "b", "priority": 7}]}}}}"#),
    ("linux.resources.network.priorities[].priority", Carried, r#"{"linux": {"resources": {"network": {"priorities": [{"name": "a", "priority": 7}]}}}}"#,
        r#"{"linux": {"resources": {"network": {"priorities": [{"name": "a", "priority": 8}]}}}}"#),
    ("linux.resources.rdma.*.hcaHandles", Carried, "{}", r#"{"linux": {"resources": {"rdma": {"a": {"hcaHandles": 7}}}}}"#),
    ("linux.resources.rdma.*.hcaObjects", Carried, "{}", r#"{"linux": {"resources": {"rdma": {"a": {"hcaObjects": 7}}}}}"#),
    ("linux.resources.unified", Carried, "{}", r#"{"linux": {"resources": {"unified": {"memory.high": "7"}}}}"#),
];

/// The lists of rates, which have the same properties each.
const RATES: [&str; 4] =
    ["throttleReadBpsDevice", "throttleWriteBpsDevice", "throttleReadIOPSDevice", "throttleWriteIOPSDevice"];

const USER: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}"#;
const USER_OF_ANOTHER_UID: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 2, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}"#;
const USER_OF_ANOTHER_UID_INSIDE: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 1, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}"#;
const USER_OF_MORE_UIDS: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 2}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 1}]}}"#;
const USER_OF_ANOTHER_GID: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 2, "size": 1}]}}"#;
const USER_OF_ANOTHER_GID_INSIDE: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 1, "hostID": 1, "size": 1}]}}"#;
const USER_OF_MORE_GIDS: &str = r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "user"}],
    "uidMappings": [{"containerID": 0, "hostID": 1, "size": 1}], "gidMappings": [{"containerID": 0, "hostID": 1, "size": 2}]}}"#;
const TIME: &str =
    r#"{"linux": {"namespaces": [{"type": "mount"}, {"type": "time"}], "timeOffsets": {"boottime": {}}}}"#;
const RULE: &str =
    r#"{"linux": {"resources": {"devices": [{"allow": true, "type": "c", "major": 9, "minor": 9, "access": "r"}]}}}"#;
const ASKS: &str = r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a",
    "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}}}"#;
const ASKED: &str = r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO"}]}}}"#;
const COMPARED: &str = r#"{"linux": {"seccomp": {"defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_ERRNO", "args": [
        {"index": 0, "value": 1, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]}]}}}"#;

/// Changes a value as RFC 7396 has it.
fn patch(value: &mut Value, with: Value) {
    match with {
        Value::Object(fields) if value.is_object() => {
            for (name, with) in fields {
                patch(&mut value[name], with);
            }
        }
        with => *value = with,
    }
}

fn translated(with: &str) -> Result<Translation, crate::Error> {
    let mut value: Value = serde_json::from_str(PLAIN).unwrap();
    patch(&mut value, serde_json::from_str(with).unwrap());
    let config = Config::from_json(value.to_string().as_bytes()).unwrap_or_else(|error| panic!("{with}: {error}"));
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    config.translate(&Surroundings::of_root())
}

/// Shows everything of a translation.
fn shown(with: &str) -> String {
    let translation = translated(with).unwrap_or_else(|error| panic!("{with}: {error}"));
    format!("{translation:#?}")
}

#[track_caller]
fn is_carried(property: &str, before: &str, after: &str) {
    assert_eq!(shown(before), shown(before), "{property}: the test would see what is not there");
    assert_ne!(shown(before), shown(after), "{property} has no effect");
}

#[test]
fn what_is_carried_out_changes_the_sandbox_and_the_rest_is_refused_by_its_path() {
    for &(property, fate, before, after) in ROWS {
        match fate {
            Carried => is_carried(property, before, after),
            NoEffect => assert_eq!(shown(before), shown(after), "{property} has an effect"),
            Refused => {
                shown(before);
                let error = translated(after).err().unwrap_or_else(|| panic!("{property} is not refused"));
                let subjects: Vec<&str> = error.problems().iter().map(|one| one.subject.as_str()).collect();
                let plain = |subject: &str| subject.replace("[0]", "[]");
                assert!(subjects.iter().all(|subject| plain(subject) == property), "{property}: {subjects:?}");
            }
        }
    }
    for list in RATES {
        let with = |device: Value| json!({"linux": {"resources": {"blockIO": {list: [device]}}}}).to_string();
        let before = with(json!({"major": 8, "minor": 0, "rate": 7}));
        is_carried(list, &before, &with(json!({"major": 9, "minor": 0, "rate": 7})));
        is_carried(list, &before, &with(json!({"major": 8, "minor": 1, "rate": 7})));
        is_carried(list, &before, &with(json!({"major": 8, "minor": 0, "rate": 8})));
    }
}

#[test]
fn every_property_of_the_types_has_a_row() {
    let seen = RefCell::default();
    Spec::deserialize(Tracer { path: String::new(), seen: &seen }).unwrap();
    let seen = seen.into_inner();
    assert!(seen.len() > 150, "the types were not walked: {seen:?}");
    let mut rows: BTreeSet<String> = ROWS.iter().map(|(property, ..)| (*property).to_owned()).collect();
    for list in RATES {
        rows.extend(["major", "minor", "rate"].map(|name| format!("linux.resources.blockIO.{list}[].{name}")));
    }
    let is_below = |property: &str, row: &str| {
        property.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    // A property that has properties of its own needs rows for these, or one for all of them.
    let missing: Vec<&String> = seen
        .iter()
        .filter(|property| !rows.iter().any(|row| is_below(property, row)))
        .filter(|property| !seen.iter().any(|other| other != *property && is_below(other, property)))
        .collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
    let gone: Vec<&String> = rows.iter().filter(|row| !seen.contains(*row)).collect();
    assert!(gone.is_empty(), "the types have no {gone:?}");
}

/// Gives a type values for everything that it has, and notes the paths of that.
#[derive(Clone)]
struct Tracer<'s> {
    path: String,
    seen: &'s RefCell<BTreeSet<String>>,
}

impl Tracer<'_> {
    fn at(&self, path: String) -> Self {
        self.seen.borrow_mut().insert(path.trim_end_matches("[]").trim_end_matches(".*").to_owned());
        Tracer { path, seen: self.seen }
    }

    /// A text that the type at this path takes.
    fn text(&self) -> &'static str {
        if self.path.starts_with("process.capabilities") { "CAP_CHOWN" } else { "0" }
    }
}

macro_rules! numbers {
    ($($method:ident)*) => { $(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.visit_u64(1)
        }
    )* };
}

impl<'de> Deserializer<'de> for Tracer<'_> {
    type Error = Error;

    numbers!(deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_i8 deserialize_i16
        deserialize_i32 deserialize_i64);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(true)
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_str(self.text())
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Once(Some(self.at(format!("{}[]", self.path)))))
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { names: vec!["*"], of: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { names: names.to_vec(), of: self })
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        names: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_enum(First(names[0]))
    }

    serde::forward_to_deserialize_any! {
        i128 u128 f32 f64 char str string bytes byte_buf unit unit_struct tuple tuple_struct identifier ignored_any
    }
}

struct Once<'s>(Option<Tracer<'s>>);

impl<'de> SeqAccess<'de> for Once<'_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        self.0.take().map(|one| seed.deserialize(one)).transpose()
    }
}

struct Fields<'s> {
    names: Vec<&'static str>,
    of: Tracer<'s>,
}

impl<'de> MapAccess<'de> for Fields<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.names.last() else { return Ok(None) };
        let name: StringDeserializer<Error> = (*name).to_owned().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let name = self.names.pop().unwrap();
        let above = &self.of.path;
        seed.deserialize(self.of.at(if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") }))
    }
}

struct First(&'static str);

impl<'de> EnumAccess<'de> for First {
    type Error = Error;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Error> {
        let name: StrDeserializer<'_, Error> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, Unit))
    }
}

struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Error> {
        Err(serde::de::Error::custom("a variant with a value"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("a variant with values"))
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("a variant with fields"))
    }
}
