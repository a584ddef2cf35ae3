//! The paths of a host in a root of its programs: programs and libraries, and the files that
//! toolchains keep in /etc. No secret of the host's is among them.
//!
//! The floor of the benchmarks (`benches/spawn/strict.rs`) has this file as well, so that it mounts
//! what the library mounts.

/// The places of programs and libraries: a link on the host, as most of them into /usr, is a link
/// inside. The last ones belong to NixOS and Guix.
pub(super) const PATHS: [&str; 9] =
    ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store", "/gnu/store"];

/// The files and directories of the host's /etc that programs look up, as far as they exist: the
/// loader's, the time zone, certificates of authorities, fonts, names of services, and the settings
/// of compilers and runtimes. Directories are shown whole.
pub(super) const FROM_HOST: [&str; 17] = [
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/tls/certs",
    "/etc/pki/ca-trust/extracted",
    "/etc/fonts",
    "/etc/mime.types",
    "/etc/protocols",
    "/etc/services",
    "/etc/mono",
    "/etc/fpc.cfg",
    "/etc/perl",
    "/etc/python3",
    "/etc/R",
];
/// The beginnings of further names in /etc that belong to toolchains: `java-17-openjdk`,
/// `fpc-3.2.2.cfg`, `python3.11`.
pub(super) const PREFIXES: [&str; 3] = ["java-", "fpc-", "python3."];
