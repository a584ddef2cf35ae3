//! Which sockets of the internet's families may be made, and the filter that stands beside Landlock's rules for TCP ports.

use nix::errno::Errno;

use super::{Action, Compare, Rule, Seccomp};

/// `SOCK_TYPE_MASK`: the flags of socket(2) stand above it.
const TYPES: u64 = 0xf;
/// In a type, set in each that is neither a stream, datagrams nor raw: SOCK_SEQPACKET is SCTP, SOCK_DCCP DCCP, SOCK_PACKET
/// packets of the link layer, whatever the family.
const OTHER_TYPES: [u64; 2] = [4, 8];

/// Of AF_INET and AF_INET6, allows what `profile` refuses or allows so far only with the protocols 0, TCP, UDP and ICMP. The
/// others have protocols that lie on TCP (MPTCP, SMC), or are kernel code that few programs need.
pub(super) fn plain_protocols(mut profile: Seccomp) -> Seccomp {
    let families = [(libc::AF_INET, libc::IPPROTO_ICMP), (libc::AF_INET6, libc::IPPROTO_ICMPV6)];
    for (family, icmp) in families {
        let of_family = |action: Action| Rule::new(["socket"], action).arg(0, Compare::int(family as u32));
        profile = profile.rule(of_family(Errno::EPROTONOSUPPORT.into()));
        for protocol in [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP, icmp] {
            profile = profile.rule(of_family(Action::Allow).arg(2, Compare::int(protocol as u32)));
        }
        for bit in OTHER_TYPES {
            let other = Compare::MaskedEq { mask: bit, value: bit };
            profile = profile.rule(of_family(Errno::ESOCKTNOSUPPORT.into()).arg(1, other));
        }
    }
    profile
}

/// Refuses the ways to a TCP connection on which Landlock has no hook: it sees connect(2) and bind(2), of sockets that are
/// TCP's own. `listens`: the program may be connected to.
pub(super) fn beside_landlock(listens: bool) -> Seccomp {
    const MSG_FASTOPEN: u64 = libc::MSG_FASTOPEN as u64;
    let mut filter = Seccomp::deny_list()
        // A ring makes sockets, and sends, behind a filter's back.
        .deny(["io_uring_setup", "io_uring_enter", "io_uring_register"])
        .rule(Rule::new(["socket"], Errno::EAFNOSUPPORT));
    // None of these carries TCP, as AF_SMC and AF_RDS do, or lets it be made by hand, as AF_PACKET and AF_XDP.
    for family in [libc::AF_UNIX, libc::AF_NETLINK, libc::AF_ALG, libc::AF_VSOCK] {
        filter = filter.rule(Rule::new(["socket"], Action::Allow).arg(0, Compare::int(family as u32)));
    }
    filter = plain_protocols(filter);
    let raw = Compare::MaskedEq { mask: TYPES, value: libc::SOCK_RAW as u64 };
    for family in [libc::AF_INET, libc::AF_INET6] {
        let of_family = Rule::new(["socket"], Action::EPERM).arg(0, Compare::int(family as u32));
        filter = filter.rule(of_family.arg(1, raw));
    }
    // Connects as it sends; the same answer as where the sysctl tcp_fastopen is off, upon which programs connect first.
    let fast = Compare::MaskedEq { mask: MSG_FASTOPEN, value: MSG_FASTOPEN };
    for (name, flags) in [("sendto", 3), ("sendmsg", 2), ("sendmmsg", 3)] {
        filter = filter.rule(Rule::new([name], Errno::EOPNOTSUPP).arg(flags, fast));
    }
    // An upper layer can turn a TCP socket into one of AF_SMC.
    let upper = Rule::new(["setsockopt"], Errno::ENOPROTOOPT).arg(1, Compare::int(libc::IPPROTO_TCP as u32));
    filter = filter.rule(upper.arg(2, Compare::int(libc::TCP_ULP as u32)));
    // What listens without bind(2) gets a port of the kernel's choice. A filter cannot tell TCP from AF_UNIX here.
    if listens { filter } else { filter.rule(Rule::new(["listen"], Errno::EACCES)) }
}
