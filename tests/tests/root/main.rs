//! flowd's built binaries on real WireGuard tunnels. Needs root.

mod books;
mod counting;
mod harness;
