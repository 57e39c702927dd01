//! What the tests of flowd's built binaries are written in: network namespaces, real WireGuard
//! tunnels, traffic whose packets and bytes are known to the unit, and the two programs.
//!
//! The tests themselves are in `tests/root/`. They need root and run on kernel WireGuard or on
//! wireguard-go (`FLOWD_TEST_WG=kernel|userspace`; the kernel's where it has one). Start reading
//! at `topology`, which draws what `namespace` and `wireguard` are for; then `traffic`, `site`.

pub mod counters;
pub mod daemon;
pub mod detach;
pub mod flowctl;
pub mod freeze;
pub mod http;
pub mod machine;
pub mod mount;
pub mod namespace;
pub mod neighbour;
pub mod own_machine;
pub mod pty;
pub mod site;
pub mod skip;
pub mod topology;
pub mod traffic;
pub mod usage;
pub mod wait;
pub mod wireguard;
