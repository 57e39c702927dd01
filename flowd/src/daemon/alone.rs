//! One flowd a network namespace: two would count every packet twice, and take each other's
//! programs off.

use std::{
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixListener},
    },
};

/// An address in the abstract namespace, which belongs to the network namespace and vanishes with
/// the process, however that ends.
const ADDRESS: &[u8] = b"flowd/watches-this-network-namespace";

/// The claim; dropping it lets another daemon start.
#[derive(Debug)]
pub(super) struct Alone {
    _claim: UnixListener,
}

/// Claims this network namespace; `None` when another daemon has it.
pub(super) fn claim() -> io::Result<Option<Alone>> {
    let address = SocketAddr::from_abstract_name(ADDRESS)?;
    match UnixListener::bind_addr(&address) {
        Ok(claim) => Ok(Some(Alone { _claim: claim })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
        Err(error) => Err(error),
    }
}
