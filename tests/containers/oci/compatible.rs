//! What suites for other runtimes look at: what programs, images and engines count on beside the words
//! of the specification.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use serde_json::{Value, json};

use super::volumes::runs;
use super::{Bundle, PATIENT};
use crate::common;

impl Bundle {
    /// Gives the container a user namespace in which ids are what they are outside.
    fn in_a_user_namespace(mut self) -> Bundle {
        self.config["linux"]["namespaces"].as_array_mut().unwrap().push(json!({"type": "user"}));
        for maps in ["uidMappings", "gidMappings"] {
            self.config["linux"][maps] = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
        }
        self
    }
}

#[test]
fn a_working_directory_is_made_before_the_root_becomes_read_only() {
    let _clean = common::clean();
    let bundle = Bundle::new("pwd; echo > /x || echo closed").with("/process/cwd", json!("/not/there"));
    assert_eq!(bundle.config["root"]["readonly"], true);
    assert_eq!(runs(&bundle), "/not/there\nclosed\n");
    let mount = json!({"destination": "/data", "type": "tmpfs", "options": ["ro"]});
    let said = bundle.mounting(mount).with("/process/cwd", json!("/data/not/there")).fails(&["create", "box"]);
    assert!(said.contains("must not be read-only"), "{said}");
}

#[test]
fn the_callers_streams_can_be_opened_by_their_names() {
    let _clean = common::clean();
    if common::needs_root("giving a file away") {
        return;
    }
    const SCRIPT: &str = "echo by name >> /dev/stdout";
    let bundle = Bundle::new(SCRIPT).with("/process/user", json!({"uid": 1000, "gid": 1000}));
    fs::write(bundle.path("in"), "").unwrap();
    let run = |words: &[&str]| {
        let status = bundle.command(words).stdin(File::open(bundle.path("in")).unwrap()).status().unwrap();
        assert!(status.success(), "{words:?}: {}", bundle.read("err"));
    };
    run(&["run", "box"]);
    assert_eq!(bundle.read("out"), "by name\n", "{}", bundle.read("err"));
    assert_eq!(fs::metadata(bundle.path("out")).unwrap().uid(), 1000);
    // What is only read stays the caller's, as does the null device.
    assert_eq!(fs::metadata(bundle.path("in")).unwrap().uid(), 0);
    assert_eq!(fs::metadata("/dev/null").unwrap().uid(), 0);

    let _reaping = common::reaping();
    let bundle = bundle.with("/process/args", json!(["sh", "-c", PATIENT]));
    bundle.does(&["run", "--detach", "box"]);
    let said = bundle.says(&["exec", "--user", "1001:1001", "box", "sh", "-c", "pwd>>/dev/stdout"]);
    assert_eq!(said.out, "/\n", "{said:?}");
    assert_eq!(fs::metadata(bundle.path("exec-out")).unwrap().uid(), 1001);
}

#[test]
fn devices_are_made_where_the_setup_may_make_none() {
    let _clean = common::clean();
    if common::needs_root("making devices") {
        return;
    }
    let odd = json!({"path": "/dev/odd", "type": "c", "major": 251, "minor": 1, "fileMode": 0o640, "uid": 3, "gid": 4});
    let zeros = json!({"path": "/opt/zeros", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444});
    let script = "ls -ln /dev/odd; ls -ln /opt/zeros; head -c 3 /opt/zeros | wc -c; \
                  (: < /dev/odd) 2> /dev/null || echo closed; echo; grep ' /dev/null ' /proc/self/mountinfo";
    let bundle = || Bundle::new(script).with("/linux/devices", json!([odd, zeros]));
    for (bundle, user_ns) in [(bundle(), false), (bundle().in_a_user_namespace(), true)] {
        let said = bundle.says(&["run", "box"]);
        let lines: Vec<Vec<&str>> = said.out.lines().map(|line| line.split_whitespace().collect()).collect();
        let shown = |line: &[&str]| line.iter().take(6).map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(shown(&lines[0]), ["crw-r-----", "1", "3", "4", "251,", "1"], "{said:?}");
        assert_eq!(shown(&lines[1])[0], "cr--r--r--", "{said:?}");
        // The rules decide who opens it: these are for the devices of every container alone.
        assert_eq!((lines[2][0], lines[3][0]), ("3", "closed"), "{said:?}");
        let bound = lines.get(5).map(|line| line[5].split(',').collect::<Vec<_>>());
        assert_eq!(bound.is_some(), user_ns, "{said:?}");
        for word in ["ro", "nosuid", "noexec"] {
            assert!(bound.iter().all(|bound| bound.contains(&word)), "{said:?}");
        }
        assert!(bundle.root.path().join("opt/zeros").exists() || user_ns);
    }
}

#[test]
fn a_tmpfs_takes_on_the_mode_of_the_directory_that_it_covers() {
    let _clean = common::clean();
    let tmpfs = |at: &str, options: Value| json!({"destination": at, "type": "tmpfs", "options": options});
    let bundle = Bundle::new("for i in there new said; do ls -ld /$i | cut -c1-10; done");
    for name in ["there", "said"] {
        fs::create_dir(bundle.root.path().join(name)).unwrap();
        fs::set_permissions(bundle.root.path().join(name), fs::Permissions::from_mode(0o712)).unwrap();
    }
    let bundle = bundle.mounting(tmpfs("/there", json!(["size=1m"]))).mounting(tmpfs("/new", json!([])));
    let bundle = bundle.mounting(tmpfs("/said", json!(["mode=700"])));
    assert_eq!(runs(&bundle), "drwx--x-w-\ndrwxrwxrwt\ndrwx------\n");
}

#[test]
fn what_a_dangling_link_leads_to_is_made_inside() {
    let _clean = common::clean();
    let bundle = Bundle::new("cat /etc/resolv.conf /run/made/by/system; cat /deep/file").holding("held");
    let root = bundle.root.path();
    fs::create_dir_all(root.join("etc")).unwrap();
    let _ = fs::remove_file(root.join("etc/resolv.conf"));
    symlink("../run/made/by/system", root.join("etc/resolv.conf")).unwrap();
    // No link leads out, however often it goes up; one may lead to another.
    let outside = bundle.path("outside");
    symlink(format!("../../../../../..{}", outside.display()), root.join("second")).unwrap();
    symlink("/second", root.join("deep")).unwrap();
    let bind = |at: &str| json!({"destination": at, "type": "bind", "source": "held"});
    let bundle = bundle.mounting(bind("/etc/resolv.conf")).mounting(bind("/deep/file"));
    assert_eq!(runs(&bundle), "held\nheld\nheld\n");
    assert!(!outside.exists());
    assert!(bundle.root.path().join(outside.strip_prefix("/").unwrap()).join("file").is_file());
    // Links that never end are an error.
    symlink("/two", bundle.root.path().join("one")).unwrap();
    symlink("/one", bundle.root.path().join("two")).unwrap();
    let said = bundle.mounting(bind("/one")).fails(&["create", "box"]);
    assert!(said.contains("ELOOP"), "{said}");
}

#[test]
fn a_configuration_may_have_another_name() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT);
    drop(bundle.command(&["state", "box"]));
    fs::rename(bundle.path("config.json"), bundle.path("other.json")).unwrap();
    let create = |config: &str| {
        let mut command = bundle.command(&["--cgroup-manager", "cgroupfs", "create", "--config", config, "box"]);
        fs::remove_file(bundle.path("config.json")).unwrap();
        command.status().unwrap().success()
    };
    assert!(!create("config.json"));
    assert!(bundle.read("err").contains("config.json"), "{}", bundle.read("err"));
    assert!(create("other.json"), "{}", bundle.read("err"));
    bundle.does(&["start", "box"]);
    // It writes to the files of its create.
    common::eventually("it runs", || bundle.read("out") == "ready\n");
    // A further program is one of the configuration that the container was made with.
    fs::write(bundle.path("other.json"), "no JSON").unwrap();
    assert_eq!(bundle.does(&["exec", "box", "pwd"]), "/\n");
}

#[test]
fn only_this_runtime_makes_control_groups() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    let managers: &[&str] = if common::runs_systemd() { &["disabled"] } else { &["systemd", "disabled"] };
    for manager in managers {
        let said = bundle.fails(&["--cgroup-manager", manager, "run", "box"]);
        assert!(said.contains("cgroup") && bundle.is_empty(), "{said}");
    }
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    let _clean = common::clean();
    let bundle = Bundle::new("true");
    let said = bundle.fails(&["--log", "no/such/dir/log", "run", "box"]);
    assert!(said.starts_with("error: --log no/such/dir/log: ") && bundle.is_empty(), "{said}");
    bundle.does(&["--log", "log", "run", "box"]);
}

#[test]
fn capabilities_beyond_the_bounding_set_are_refused() {
    let _clean = common::clean();
    let sets = json!({"bounding": [], "permitted": ["CAP_KILL"], "effective": [], "inheritable": ["CAP_KILL"]});
    let said = Bundle::new("true").with("/process/capabilities", sets).fails(&["create", "box"]);
    assert!(said.contains("process.capabilities.inheritable: ") && said.contains("EPERM"), "{said}");
}

#[test]
fn a_further_program_tells_its_first_processors_when_asked() {
    let _clean = common::clean();
    let _reaping = common::reaping();
    let bundle = Bundle::new(PATIENT).with("/process/execCPUAffinity", json!({"initial": "0"}));
    bundle.does(&["run", "--detach", "box"]);
    let said = bundle.says(&["--debug", "exec", "box", "true"]);
    assert!(said.status.success() && said.err.contains("affinity: 0x1\"\n"), "{said:?}");
    assert_eq!(bundle.says(&["exec", "box", "true"]).err, "");
}

#[test]
fn a_hook_inside_without_an_environment_has_that_of_the_program() {
    let _clean = common::clean();
    let hook = |env: Value| {
        let args = json!(["sh", "-c", "test \"$MARK\" = mark"]);
        json!({"startContainer": [{"path": "/bin/sh", "args": args, "env": env, "timeout": 100}]})
    };
    let bundle = Bundle::new("echo ran").with("/process/env", json!(["PATH=/usr/bin:/bin", "MARK=mark"]));
    let bundle = bundle.with("/hooks", hook(Value::Null));
    assert_eq!(runs(&bundle), "ran\n");
    let said = bundle.with("/hooks", hook(json!(["PATH=/usr/bin:/bin"]))).fails(&["run", "box"]);
    assert!(said.contains("error running startContainer hook #0: exit status: 1"), "{said}");
}
