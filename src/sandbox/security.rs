//! The setters for what the program may ask of the kernel, and for its privileges.

use std::path::Path;

use super::Sandbox;
use crate::security::{Capabilities, Landlock, RemoteSupervisor, Seccomp};

/// # What the program may ask of the kernel
impl Sandbox {
    /// Restricts paths, TCP ports, signals and abstract sockets by [`Landlock`], with or without
    /// namespaces. Sets `no_new_privs`. A later call replaces the rules of an earlier one.
    ///
    /// ```
    /// use ringfence::{Landlock, Sandbox};
    ///
    /// // No namespaces: the program sees the host, and may read only /usr, /lib and /etc.
    /// let rules = Landlock::new().execute("/usr").execute("/lib").read("/etc");
    /// let sandbox = Sandbox::new().landlock(rules).command("sort");
    /// # drop(sandbox);
    /// ```
    pub fn landlock(mut self, rules: Landlock) -> Self {
        self.policy.landlock = Some(rules);
        self
    }
}

/// # Privileges
impl Sandbox {
    /// Sets the capabilities of the program, and of all processes in the sandbox. Without this
    /// call, the program has those of the caller's capabilities that an exec keeps. The inheritable
    /// and the ambient set are empty in any case, unless this call fills them.
    ///
    /// With [`user_ns`](Sandbox::user_ns), and without this call, a program that runs as uid 0
    /// inside has every capability over its namespaces but two: `CAP_SYS_ADMIN`, where the sandbox
    /// has mounts, masks or read-only paths, because the program could undo them; and
    /// `CAP_SYS_PTRACE`, below an [`init`](Sandbox::init), because the program could write to the
    /// memory of the init. [`Capabilities::all_but`]`([])` gives both to a program that is trusted
    /// with all that is bound. `CAP_SYS_PTRACE` is refused together with an init and a filter of
    /// [`seccomp`](Sandbox::seccomp), because the init stands outside of the filter, unless
    /// [`landlock`](Sandbox::landlock) keeps the program off the init.
    ///
    /// Cutting down the bounding set needs `CAP_SETPCAP`, which a user namespace gives. Where the
    /// set cannot be cut down, the spawn fails, or with
    /// [`best_effort`](Sandbox::best_effort)`(Feature::BoundingSet)` leaves the set as it is.
    ///
    /// ```
    /// use ringfence::{Capabilities, Capability, Sandbox};
    ///
    /// let web = Capabilities::keep([Capability::CAP_NET_BIND_SERVICE]);
    /// let sandbox = Sandbox::new().capabilities(web).user(33, 33).command("httpd");
    /// # drop(sandbox);
    /// ```
    pub fn capabilities(mut self, sets: Capabilities) -> Self {
        self.policy.security.capabilities = Some(sets);
        self
    }

    /// Forbids processes of the sandbox to gain privileges by an exec, if `wanted`: set-user-ID and
    /// set-group-ID bits and file capabilities are without effect (`PR_SET_NO_NEW_PRIVS`, prctl(2),
    /// since 3.5). If the caller has this attribute already, the sandbox cannot give it up.
    ///
    /// ```
    /// use ringfence::Sandbox;
    ///
    /// let grep = Sandbox::new().command("grep").args(["NoNewPrivs", "/proc/self/status"]);
    /// let output = grep.no_new_privs(true).output()?;
    /// assert_eq!(output.stdout, b"NoNewPrivs:\t1\n");
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn no_new_privs(mut self, wanted: bool) -> Self {
        self.policy.security.no_new_privs = wanted;
        self
    }

    /// Sends the listener of the [`seccomp`](Sandbox::seccomp) profile, which has rules with
    /// [`Action::Notify`](crate::Action::Notify), to a supervisor in another process: over the unix
    /// stream socket at `path`, with `SCM_RIGHTS`. This is `listenerPath` of the OCI runtime
    /// specification, whose message is the state of the container as JSON; its `listenerMetadata`
    /// is part of that. seccomp_unotify(2), since 5.0.
    ///
    /// `message` makes the message from the pid that [`Child::id`](crate::Child::id) gives. The
    /// library connects before a child exists; so a supervisor that is not there is an error that
    /// leaves nothing. Once the filter is installed, it sends message and descriptor, and then the
    /// end of the stream. Only when all has been sent is the program executed, and a failure ends
    /// the spawn: the program has not run. Connecting and sending take at most
    /// [`setup_timeout`](Sandbox::setup_timeout) each. Each program of
    /// [`Child::exec`](crate::Child::exec) does the same, with its own pid. A [`Pool`](crate::Pool)
    /// has no such sandboxes. A [`create`](Sandbox::create) sends the listener as well, and the
    /// sandbox waits for its start under the filter.
    ///
    /// ```no_run
    /// use ringfence::{Action, Rule, Sandbox, Seccomp};
    ///
    /// let asks = Seccomp::default().rule(Rule::new(["mount"], Action::Notify));
    /// let state = |pid| {
    ///     let state = r#""ociVersion":"1.3.0","fds":["seccompFd"],"metadata":"m","state":{}"#;
    ///     format!(r#"{{"pid":{pid},{state}}}"#).into_bytes()
    /// };
    /// let sandbox = Sandbox::new().seccomp(asks).notify_socket("/run/agent.sock", state);
    /// println!("{}", sandbox.status()?.verdict());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`check`](Sandbox::check) refuses this without a rule that asks. A spawn fails at
    /// [`Step::HandListenerOver`](crate::Step::HandListenerOver): ENOENT, ECONNREFUSED, ENOTSOCK,
    /// EPIPE if the supervisor hangs up, or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout).
    pub fn notify_socket(
        mut self,
        path: impl AsRef<Path>,
        message: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static,
    ) -> Self {
        self.policy.supervisor = Some(RemoteSupervisor::new(path.as_ref(), message));
        self
    }

    /// Runs the program under this profile of AppArmor, which is loaded already: the kernel changes
    /// to it at the exec, so that the setup is not confined by it. apparmor(7). `unconfined` is
    /// none. Programs of [`Child::exec`](crate::Child::exec) get the same.
    ///
    /// A kernel without AppArmor is an error of [`check`](Sandbox::check), a profile that is not
    /// loaded one of the spawn (ENOENT at [`Step::Label`](crate::Step::Label)).
    ///
    /// ```no_run
    /// use ringfence::Sandbox;
    ///
    /// let sandbox = Sandbox::new().apparmor_profile("docker-default").command("make");
    /// # sandbox.status()?;
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn apparmor_profile(mut self, name: impl Into<String>) -> Self {
        self.policy.security.labels.apparmor = Some(name.into());
        self
    }

    /// Runs the program with this label of SELinux, as setexeccon(3) does:
    /// `system_u:system_r:container_t:s0:c1,c2`. Files need labels that this one may use: the
    /// option `context=` of a mount gives them. Programs of [`Child::exec`](crate::Child::exec) get
    /// the same.
    ///
    /// A kernel without SELinux is an error of [`check`](Sandbox::check), a label that its policy
    /// does not know one of the spawn (EINVAL at [`Step::Label`](crate::Step::Label)).
    pub fn selinux_label(mut self, label: impl Into<String>) -> Self {
        self.policy.security.labels.selinux = Some(label.into());
        self
    }

    /// Gives the sandbox an empty session keyring of its own, instead of the caller's with all its
    /// keys: session-keyring(7). A kernel without keys has none to share.
    ///
    /// A keyring counts against the quota of the caller's user, which is 200 for an ordinary user
    /// (`/proc/sys/kernel/keys/maxkeys`). Beyond the quota, the spawn fails with EDQUOT.
    pub fn session_keyring(mut self, wanted: bool) -> Self {
        self.policy.security.session_keyring = wanted;
        self
    }

    /// Sets the filter of the system calls that the program may make; sets `no_new_privs`. A later
    /// call replaces an earlier one, and `None` removes the filter. seccomp(2), since 4.14.
    ///
    /// [`Seccomp::default()`](Seccomp::default) is the profile for untrusted programs. An
    /// [`init`](Sandbox::init) stands outside of the filter, as does the setup of the sandbox.
    ///
    /// ```
    /// use ringfence::{Sandbox, Seccomp};
    ///
    /// let sandbox = Sandbox::new().seccomp(Seccomp::default()).command("unshare").args(["--user", "true"]);
    /// assert!(!sandbox.output()?.outcome.success());
    /// # Ok::<(), ringfence::Error>(())
    /// ```
    pub fn seccomp(mut self, profile: impl Into<Option<Seccomp>>) -> Self {
        self.policy.seccomp = profile.into();
        self
    }
}

/// # What was refused
impl Sandbox {
    /// Sets whether the system calls that the [`seccomp`](Sandbox::seccomp) profile answers with an
    /// errno are recorded: [`Child::denials`](crate::Child::denials),
    /// [`Output::denials`](crate::Output::denials). The records show why a program does not work in
    /// the sandbox, and what it has tried.
    ///
    /// The filter asks about each such call (seccomp_unotify(2)), and a thread of this library, one
    /// for each program, records the call and answers with the errno of the profile. So the program
    /// gets the answer that it would get otherwise, at the price of a few microseconds. No call is
    /// let through. A sandbox keeps 256 records at most, 32 of each system call with one errno, and
    /// counts the rest.
    ///
    /// Only what the profile refuses is recorded. No record has:
    ///
    /// - what the kernel itself refuses later: files at a read-only mount, a mask or a Landlock
    ///   rule (EROFS, EACCES), capabilities (EPERM), limits. A filter is asked before the call, and
    ///   cannot know its result. Landlock's own log (Linux 6.15) is part of the audit log, which
    ///   only `CAP_AUDIT_READ` in the first user namespace may read;
    /// - a call that ends the program ([`Verdict::Seccomp`](crate::Verdict::Seccomp)), and one with
    ///   [`Action::Trap`](crate::Action::Trap) or [`Action::Trace`](crate::Action::Trace);
    /// - what filters refuse that the program has installed itself, and the filter beside
    ///   Landlock's rules for TCP ports.
    ///
    /// Where a program outlives its owner ([`die_with_owner(false)`](Sandbox::die_with_owner)),
    /// calls are refused with ENOSYS after the owner's end. The program cannot have a supervisor of
    /// its own for a filter (EBUSY), not even then. A signal whose handler does not restart calls
    /// can interrupt a refused call (EINTR).
    ///
    /// Needs Linux 5.8. Where a filter around the caller has a supervisor already, or the profile
    /// has [`Action::Notify`](crate::Action::Notify), the call is an error, unless
    /// [`best_effort`](Sandbox::best_effort)`(`[`Feature::Denials`](crate::Feature::Denials)`)`
    /// goes without the record.
    ///
    /// ```
    /// use ringfence::{Feature, Sandbox, Seccomp};
    ///
    /// # fn main() -> Result<(), ringfence::Error> {
    /// let sandbox = Sandbox::new().seccomp(Seccomp::default()).denials(true);
    /// let sandbox = sandbox.best_effort(Feature::Denials);
    /// let output = sandbox.command("sh").args(["-c", "unshare --user true"]).output()?;
    /// if let Some(denial) = output.denials.iter().flatten().find(|one| one.syscall() == Some("unshare")) {
    ///     assert_eq!(denial.errno(), libc::EPERM);
    ///     println!("{denial}: {}", denial.allowed_by());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn denials(mut self, wanted: bool) -> Self {
        self.policy.denials = wanted;
        self
    }
}
