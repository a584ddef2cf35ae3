//! The base of the rows: a static `true` and a static `pause` in a root directory of their own, and
//! memory that makes the caller big.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

/// `exit_group(0)`.
#[cfg(target_arch = "x86_64")]
const TRUE: &[u8] = &[0x31, 0xff, 0xb8, 231, 0, 0, 0, 0x0f, 0x05];
/// `pause()`, again and again.
#[cfg(target_arch = "x86_64")]
const PAUSE: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
#[cfg(target_arch = "x86_64")]
const EM_MACHINE: u16 = 62;

/// `exit_group(0)`.
#[cfg(target_arch = "aarch64")]
const TRUE: &[u8] = &[0x00, 0x00, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
/// `ppoll(NULL, 0, NULL, NULL)`, again and again.
#[cfg(target_arch = "aarch64")]
const PAUSE: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28, 0x09, 0x80,
    0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];
#[cfg(target_arch = "aarch64")]
const EM_MACHINE: u16 = 183;

/// A directory with `root/true`, `root/pause` and the empty places of mounts. A drop removes the
/// directory.
#[derive(Debug)]
pub struct Fixture {
    dir: PathBuf,
    /// The root directory of the sandboxes.
    pub root: PathBuf,
    /// The path of the program on the host.
    pub program: PathBuf,
}

impl Fixture {
    /// Makes the directory below the one that cargo gives to benches; examples have no such
    /// directory.
    pub fn new() -> io::Result<Self> {
        let parent = option_env!("CARGO_TARGET_TMPDIR").map_or_else(std::env::temp_dir, PathBuf::from);
        let dir = parent.join(format!("ringfence-bench-{}", std::process::id()));
        let root = dir.join("root");
        let fixture = Fixture { program: root.join("true"), root, dir };
        for place in ["proc", "dev", "tmp"] {
            fs::create_dir_all(fixture.root.join(place))?;
        }
        for (program, code) in [(&fixture.program, TRUE), (&fixture.root.join("pause"), PAUSE)] {
            fs::write(program, elf(code))?;
            fs::set_permissions(program, Permissions::from_mode(0o755))?;
        }
        Ok(fixture)
    }

    /// Returns a path for a file of the bench itself, outside of the root.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Returns a static executable without any library: elf(5) with one segment, which contains the
/// headers and the code.
fn elf(code: &[u8]) -> Vec<u8> {
    const ADDRESS: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    const READ_AND_EXECUTE: u32 = 5;
    const LARGEST_PAGE: u64 = 0x1_0000;
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    file.extend_from_slice(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // e_type ET_EXEC, e_machine, e_version, e_entry, e_phoff, e_shoff, e_flags.
    half(&mut file, &[2, EM_MACHINE]);
    word(&mut file, &[1]);
    long(&mut file, &[ADDRESS + HEADERS, 64, 0]);
    word(&mut file, &[0]);
    // e_ehsize, e_phentsize, e_phnum, e_shentsize, e_shnum, e_shstrndx.
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    // p_type PT_LOAD, p_flags, p_offset, p_vaddr, p_paddr, p_filesz, p_memsz, p_align.
    word(&mut file, &[1, READ_AND_EXECUTE]);
    long(&mut file, &[0, ADDRESS, ADDRESS, size, size, LARGEST_PAGE]);
    file.extend_from_slice(code);
    file
}

fn half(file: &mut Vec<u8>, values: &[u16]) {
    file.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
}

fn word(file: &mut Vec<u8>, values: &[u32]) {
    file.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
}

fn long(file: &mut Vec<u8>, values: &[u64]) {
    file.extend(values.iter().flat_map(|value| value.to_ne_bytes()));
}

/// Resident memory of the caller. A fork would copy its page tables.
#[derive(Debug)]
pub struct Ballast(Vec<u8>);

impl Ballast {
    /// The size for the rows with a big caller.
    pub const USUAL: usize = 2 << 30;

    /// Allocates this number of bytes, and writes to each of them.
    pub fn new(size: usize) -> Self {
        Ballast(std::hint::black_box(vec![1; size]))
    }

    /// Returns true if the machine has this much memory to spare.
    pub fn fits(size: usize) -> bool {
        let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib =
            text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.split_whitespace().next()?.parse().ok());
        kib.is_some_and(|kib: usize| kib / 2 > size / 1024)
    }
}

impl Drop for Ballast {
    fn drop(&mut self) {
        // This read at the end keeps the memory in use until then.
        std::hint::black_box(self.0.last());
    }
}
