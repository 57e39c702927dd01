//! WireGuard's own view: its interfaces, their peers, its counters. The only module that knows
//! `wireguard-control` and netlink. Keys other than public ones are dropped where they arrive.

mod effort;
mod filters;
mod links;
mod route;
mod watch;

use std::{
    io,
    net::SocketAddr,
    path::Path,
    time::{Instant, UNIX_EPOCH},
};

use ipnet::IpNet;
use wireguard_control as wg;

pub use filters::has_filter;
pub use links::{DeviceCounters, addresses, ifindex_of};
pub use route::route;
pub use watch::{Names, watch};

/// Where userspace implementations put their control sockets
/// (<https://www.wireguard.com/xplatform/>).
const SOCKET_DIRS: [&str; 2] = ["/var/run/wireguard", "/run/wireguard"];

/// Who implements an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel's `wireguard` driver.
    Kernel,
    /// A process with a TUN device and a control socket.
    Userspace,
}

impl Backend {
    /// The word in status.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::Userspace => "userspace",
        }
    }
}

/// One interface at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its number; another number under the same name is another interface.
    pub ifindex: u32,
    /// Who implements it.
    pub backend: Backend,
    /// Its peers.
    pub peers: Vec<Peer>,
    /// When it was asked: its counters are of then or later.
    pub asked: Instant,
}

/// One peer at one time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// In base64.
    pub public_key: String,
    /// The outer address it was last heard from.
    pub endpoint: Option<SocketAddr>,
    /// What it may send from, and what is sent to it.
    pub allowed_ips: Vec<IpNet>,
    /// Unix milliseconds.
    pub latest_handshake_ms: Option<i64>,
    /// Outer bytes received.
    pub rx_bytes: u64,
    /// Outer bytes sent.
    pub tx_bytes: u64,
}

/// Every WireGuard interface of this network namespace, by name. An interface that vanishes while
/// it is read is left out; one whose control socket does not answer is as it was in `before`.
pub fn scan(before: &[Interface]) -> io::Result<Vec<Interface>> {
    let mut interfaces = Vec::new();
    for name in wg::Device::list(wg::Backend::Kernel)? {
        interfaces.extend(read(name, Backend::Kernel, before)?);
    }
    for name in userspace_names()? {
        if interfaces.iter().any(|known| known.name == name.as_str_lossy()) {
            continue;
        }
        interfaces.extend(read(name, Backend::Userspace, before)?);
    }
    interfaces.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(interfaces)
}

fn read(
    name: wg::InterfaceName,
    backend: Backend,
    before: &[Interface],
) -> io::Result<Option<Interface>> {
    let text = name.as_str_lossy().into_owned();
    let Some(ifindex) = ifindex_of(&text) else {
        return Ok(None);
    };
    let wg_backend = match backend {
        Backend::Kernel => wg::Backend::Kernel,
        Backend::Userspace => wg::Backend::Userspace,
    };
    let asked = Instant::now();
    let device = match wg::Device::get(&name, wg_backend) {
        Ok(device) => device,
        Err(_) if ifindex_of(&text) != Some(ifindex) => return Ok(None),
        // The socket of another network namespace, or of a process that is busy or gone.
        Err(_) if backend == Backend::Userspace => {
            let known = |known: &&Interface| known.ifindex == ifindex && known.name == text;
            return Ok(before.iter().find(known).cloned());
        }
        Err(error) => return Err(error),
    };
    if ifindex_of(&text) != Some(ifindex) {
        return Ok(None);
    }
    let peers = device.peers.iter().map(peer).collect();
    Ok(Some(Interface { name: text, ifindex, backend, peers, asked }))
}

fn peer(info: &wg::PeerInfo) -> Peer {
    let wg::PeerInfo { config, stats } = info;
    let allowed_ips = config
        .allowed_ips
        .iter()
        .filter_map(|allowed| IpNet::new(allowed.address, allowed.cidr).ok())
        .map(|net| net.trunc())
        .collect();
    let latest_handshake_ms = stats
        .last_handshake_time
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .filter(|since| !since.is_zero())
        .and_then(|since| i64::try_from(since.as_millis()).ok());
    Peer {
        public_key: config.public_key.to_base64(),
        endpoint: config.endpoint,
        allowed_ips,
        latest_handshake_ms,
        rx_bytes: stats.rx_bytes,
        tx_bytes: stats.tx_bytes,
    }
}

/// Names that have a control socket. Other network namespaces may share the directory, so whether
/// the link is here is another question.
fn userspace_names() -> io::Result<Vec<wg::InterfaceName>> {
    let Some(directory) = SOCKET_DIRS.into_iter().find(|directory| Path::new(directory).exists())
    else {
        return Ok(Vec::new());
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sock") {
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            names.extend(stem.and_then(|stem| stem.parse::<wg::InterfaceName>().ok()));
        }
    }
    Ok(names)
}
