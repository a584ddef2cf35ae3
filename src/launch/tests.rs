//! Tests of the labels of programs, and of what a ticket would give beyond the sandbox that it
//! names.

use std::fs::File;
use std::os::fd::AsFd;

use super::emit::{Run, SetupKey};
use super::enter::Way;
use super::excess::{Process, Rights, excess, read_map};
use super::record::tests::record;
use crate::command::Command;
use crate::error::Step;
use crate::namespace::{IdMap, Namespaces};
use crate::plan::Plan;
use crate::policy::Policy;
use crate::security::Labels;
use crate::stdio::{Fds, Stdio, Streams};

/// The labels of `plan`, which are set while /proc is still the caller's.
fn labels_of(plan: &Plan, later: Step) -> Vec<String> {
    assert!(plan.first(Step::Label) < plan.first(later), "{later} comes first");
    plan.written(Step::Label).into_iter().map(|(_, text)| text).collect()
}

/// A host has one of the two modules, and most have neither: the plan is looked at, as no kernel takes both.
#[test]
fn a_program_gets_its_labels_while_proc_is_the_callers() {
    let mut policy = Policy::default();
    policy.namespaces.new = Namespaces::USER | Namespaces::MOUNT;
    let judgement = policy.judge(false).unwrap();
    let key = SetupKey::without_resources(None, false);
    let plan = |policy: &Policy| policy.emit_setup(&judgement, &key, None).unwrap().plan;
    assert_eq!(plan(&policy).first(Step::Label), None);
    policy.security.labels = Labels { apparmor: Some("web".into()), selinux: Some("u:r:web:s0".into()) };
    assert_eq!(labels_of(&plan(&policy), Step::Propagation), ["exec web", "u:r:web:s0"]);
}

#[test]
fn a_further_program_gets_the_labels_of_its_command() {
    let record = record("new=20000,joined=0,caller=0:0:").unwrap();
    let null = File::open("/dev/null").unwrap();
    let default = Stdio::captured();
    let plan = |command: &Command| {
        let (terms, problems) = record.entrance_of_text().terms(command);
        assert!(problems.is_empty(), "{problems:?}");
        let run = Run {
            invocation: command.invocation(&terms.policy.invocation()),
            streams: Streams::open(Stdio::choose([None; 3], &default)).unwrap(),
            fds: Fds::new(),
        };
        terms.policy.emit_entry(&terms, &Way::by(null.as_fd()), &run, command).unwrap()
    };
    assert_eq!(plan(&Command::new("true")).first(Step::Label), None);
    let labelled = Command::new("true").apparmor_profile("web").selinux_label("u:r:web:s0");
    assert_eq!(labels_of(&plan(&labelled), Step::JoinNamespace), ["exec web", "u:r:web:s0"]);
}

fn open() -> Rights {
    let (uids, gids) = (vec![0; 4], vec![0; 4]);
    Rights { bounding: u64::MAX, permitted: u64::MAX, uids, gids, ..Rights::default() }
}

fn process(rights: Rights) -> Process {
    let namespaces = Namespaces::all().iter().map(|kind| (kind, 1)).collect();
    Process { rights, namespaces, root: (1, 1), ..Process::default() }
}

fn of(pairs: &str, theirs: Process, own: &Process) -> String {
    let is_whole = pairs.contains("user=") && pairs.contains("groups=");
    let caller = if is_whole { "" } else { "caller=0:0:," };
    let record = record(&format!("joined=0,{caller}{pairs}")).expect(pairs);
    let (terms, _) = record.entrance_of_text().terms(&Command::new("true"));
    excess(&terms, &theirs, own).unwrap_or_default()
}

#[test]
fn a_text_that_gives_more_than_the_sandbox_has_is_told() {
    let own = process(open());
    let told = |pairs: &str, theirs: Rights| of(pairs, process(theirs), &own);
    assert_eq!(told("new=0,init=1", open()), "");
    assert!(told("new=0,init=1", Rights { bounding: 1, ..open() }).contains("capabilities"));
    assert!(told("new=0,init=1", Rights { no_new_privs: true, ..open() }).contains("privileges"));
    assert!(told("new=0,init=1", Rights { filters: 1, ..open() }).contains("system calls"));
    let filtered = process(Rights { filters: 1, ..open() });
    assert_eq!(of("new=0,init=1", filtered.clone(), &filtered), "");
    let kept = "new=0,bounding=1,caps=3.1.1.0.0.-";
    assert_eq!(told(kept, Rights { bounding: 3, ..open() }), "");
    assert!(told(kept, Rights { bounding: 1, ..open() }).contains("capabilities"));
    // What is left in the bounding set, an exec gives to uid 0.
    assert!(told("new=0,caps=3.1.1.0.0.-", Rights { bounding: 3, ..open() }).contains("capabilities"));
    assert_eq!(told("new=0,caps=3.1.1.0.0.-", open()), "");
    // An exec keeps an ambient set, and root has the bounding set where no secure bit is set.
    let bare = Rights { permitted: 0, ..open() };
    assert!(told("new=0,user=0:0,bounding=1,caps=1.0.0.0.0.-", bare.clone()).contains("capabilities"));
    let (uids, gids) = (vec![7; 4], vec![7; 4]);
    let bare = Rights { uids, gids, ..bare };
    assert_eq!(told("new=0,user=7:7,bounding=1,caps=1.0.0.0.0.-", bare.clone()), "");
    assert!(told("new=0,user=7:7,bounding=1,caps=1.1.1.1.1.-", bare).contains("capabilities"));
    // Who enters a user namespace without a set has all there.
    let inside = Process { uid_map: vec![IdMap::new(0, 0, 1)], gid_map: vec![IdMap::new(0, 0, 1)], ..own.clone() };
    assert_eq!(of("new=10000000", inside.clone(), &own), "");
    let rights = Rights { bounding: 0, ..open() };
    assert!(of("new=10000000", Process { rights, ..inside }, &own).contains("capabilities"));
}

#[test]
fn a_text_that_leads_elsewhere_is_told() {
    let own = process(open());
    for (at, kind) in Namespaces::all().iter().enumerate() {
        let mut theirs = own.clone();
        theirs.namespaces[at].1 = 2;
        (theirs.uid_map, theirs.gid_map) = (vec![IdMap::new(0, 0, 9)], vec![IdMap::new(0, 0, 9)]);
        let name = kind.file().unwrap();
        assert_eq!(of("new=0", theirs.clone(), &own), format!("this process's {name} namespace"));
        assert_eq!(of(&format!("new={:x}", kind.bits()), theirs, &own), "", "{name}");
    }
    let chrooted = Process { root: (1, 2), ..own.clone() };
    assert_eq!(of("new=20000000", chrooted.clone(), &own), "this process's root directory");
    assert_eq!(of("new=20000", chrooted, &own), "");
}

#[test]
fn a_text_with_other_ids_is_told() {
    let own = process(open());
    let ids = |uid: u32, gid: u32, groups: &[u32]| Rights {
        uids: vec![uid; 4],
        gids: vec![gid; 4],
        groups: groups.to_vec(),
        ..open()
    };
    let told = |pairs: &str, rights: Rights| of(pairs, process(rights), &own);
    assert_eq!(told("new=0,user=7:8", ids(7, 8, &[])), "");
    assert_eq!(told("new=0,user=7:8,groups=9", ids(7, 8, &[9])), "");
    assert_eq!(told("new=0", ids(7, 8, &[])), "another user");
    assert_eq!(told("new=0,user=0:8", ids(7, 8, &[])), "another user");
    assert_eq!(told("new=0,user=7:0", ids(7, 8, &[])), "other groups");
    assert_eq!(told("new=0,user=7:8,groups=0", ids(7, 8, &[9])), "other groups");
    let with_group = process(ids(0, 0, &[5]));
    assert_eq!(of("new=0", process(ids(0, 0, &[])), &with_group), "other groups");
    // In a user namespace the numbers are those of its maps, whatever the text says of them.
    let mut inside = process(ids(1007, 1008, &[]));
    (inside.uid_map, inside.gid_map) = (vec![IdMap::new(0, 1000, 9)], vec![IdMap::new(0, 1000, 9)]);
    inside.namespaces.iter_mut().for_each(|(_, inode)| *inode += 1);
    let told = |pairs: &str| of(&format!("new=7e020080,maps=0-0-9:0-0-9:0:0:0{pairs}"), inside.clone(), &own);
    assert_eq!(told(",user=7:8"), "");
    assert_eq!(told(""), "another user", "root of the maps");
    assert_eq!(told(",user=1007:1008"), "another user");
    assert_eq!(told(",user=7:7"), "other groups");
}

#[test]
fn rights_are_read_from_a_status() {
    let status = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapInh:\t1\nCapPrm:\t2\n\
                  CapBnd:\t00000000000000c0\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
    let (uids, gids, groups) = (vec![1, 2, 3, 4], vec![5, 6, 7, 8], vec![9, 10]);
    let read = Rights { bounding: 0xc0, permitted: 3, no_new_privs: true, filters: 3, uids, gids, groups };
    assert_eq!(Rights::parse(status), Some(read));
    let old = status.replace("Seccomp_filters:\t3\n", "");
    assert_eq!(Rights::parse(&old).unwrap().filters, 1);
    assert_eq!(Process::read("/proc/thread-self").unwrap().root, Process::read("/proc/self").unwrap().root);
    crate::fuzz::texts(&[status, "0 1 2\n"], |text| {
        let _ = (Rights::parse(text), read_map(text));
    });
}
