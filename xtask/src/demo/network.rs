//! The demo's network: four namespaces, two tunnels.
//!
//! `cable` is a veth pair. Every name ends in this process's id, so that two demos do not meet.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::stage::{Process, Stage};
use crate::command::{command, read, run, succeeds, wait_until};

/// The host behind the gateway.
pub(super) const SERVER_4: &str = "10.99.0.10";
const SERVER_6: &str = "fd99::10";

const PORT: &str = "51820";

/// One namespace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Host {
    Gateway,
    Lan,
    Alice,
    Bob,
}

/// The network, as long as the stage stands.
pub(super) struct Network {
    id: u32,
    kind: Kind,
    /// In the order of [`PEERS`].
    public_keys: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Kernel,
    Userspace,
}

/// A WireGuard peer and its addresses.
struct Peer {
    host: Host,
    /// On the way to the gateway.
    outer: &'static str,
    /// The gateway's end of that way.
    gateway: &'static str,
    inner_4: &'static str,
    inner_6: &'static str,
    identity: &'static str,
}

const PEERS: [Peer; 2] = [
    Peer {
        host: Host::Alice,
        outer: "192.0.2.2",
        gateway: "192.0.2.1",
        inner_4: "10.88.0.2",
        inner_6: "fd88::2",
        identity: "name = \"alice-laptop\"
user = \"alice@example.com\"
device = \"laptop\"
groups = [\"engineering\"]
",
    },
    Peer {
        host: Host::Bob,
        outer: "198.51.100.2",
        gateway: "198.51.100.1",
        inner_4: "10.88.0.3",
        inner_6: "fd88::3",
        identity: "name = \"bob-workstation\"
user = \"bob@example.com\"
device = \"workstation\"
groups = [\"operations\"]
",
    },
];

impl Host {
    const ALL: [Self; 4] = [Self::Gateway, Self::Lan, Self::Alice, Self::Bob];

    fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gw",
            Self::Lan => "lan",
            Self::Alice => "alice",
            Self::Bob => "bob",
        }
    }
}

impl Network {
    /// Builds it and waits until both tunnels carry packets.
    pub(super) fn build(stage: &Stage) -> Result<Self> {
        let id = std::process::id();
        let mut network = Self { id, kind: Kind::Kernel, public_keys: Vec::new() };
        for host in Host::ALL {
            stage.namespace(&network.namespace(host))?;
            network.ip(host, "link set lo up")?;
        }
        network.lan()?;
        if !succeeds(network.on(Host::Gateway).args([
            "ip",
            "link",
            "add",
            &network.interface(Host::Gateway),
            "type",
            "wireguard",
        ])) {
            network.kind = Kind::Userspace;
        }
        network.tunnels(stage)?;
        network.start(stage, Host::Lan, &["serve".to_owned()])?;
        for Peer { host, .. } in &PEERS {
            let ping = ["ping", "-q", "-c1", "-W1", SERVER_4];
            if !wait_until(Duration::from_secs(10), || succeeds(network.on(*host).args(ping))) {
                bail!("the tunnel of {} carries nothing", host.name());
            }
        }
        Ok(network)
    }

    /// What was built, for people.
    pub(super) fn picture(&self) -> String {
        format!(
            "  alice 10.88.0.2 ──WireGuard──┐
                               ├── gateway ({}) ──── lan {SERVER_4}: web, DNS
  bob   10.88.0.3 ──WireGuard──┘
",
            self.gateway_interface()
        )
    }

    /// Whose WireGuard it is.
    pub(super) fn kind(&self) -> &'static str {
        match self.kind {
            Kind::Kernel => "the kernel's",
            Kind::Userspace => "wireguard-go, because this kernel has none",
        }
    }

    /// The interface that flowd watches.
    pub(super) fn gateway_interface(&self) -> String {
        self.interface(Host::Gateway)
    }

    /// The start of a command that runs on a host.
    pub(super) fn on(&self, host: Host) -> Command {
        command(["ip", "netns", "exec", &self.namespace(host)])
    }

    /// Who the peers are, as flowd reads it.
    pub(super) fn identities(&self) -> String {
        let entry = |(peer, key): (&Peer, &String)| {
            format!("[[peers]]\npublic_key = \"{key}\"\n{}\n", peer.identity)
        };
        PEERS.iter().zip(&self.public_keys).map(entry).collect()
    }

    /// Starts a role on a host.
    pub(super) fn start(&self, stage: &Stage, host: Host, role: &[String]) -> Result<Process> {
        stage.spawn(self.role(host)?.args(role))
    }

    /// Alice's traffic, and one packet from peer to peer.
    pub(super) fn traffic(&self) -> Result<()> {
        let role = |words: &[&str]| run(self.role(Host::Alice)?.args(words));
        let ping = |host, target| read(self.on(host).args(["ping", "-c3", "-i0.2", "-W2", target]));
        ping(Host::Alice, SERVER_4)?;
        role(&["dns", SERVER_4, "intranet.example"])?;
        role(&["web", SERVER_4])?;
        role(&["web", SERVER_6])?;
        ping(Host::Bob, "10.88.0.2")?;
        Ok(())
    }

    /// Shows WireGuard's own counters, to compare with.
    pub(super) fn counters(&self) -> Result<()> {
        println!("\n$ wg show {} transfer", self.gateway_interface());
        let interface = self.gateway_interface();
        run(self.on(Host::Gateway).args(["wg", "show", &interface, "transfer"]))
    }

    fn lan(&self) -> Result<()> {
        self.cable(Host::Lan, SERVER_4, "10.99.0.1")?;
        self.ip(Host::Lan, &format!("address add {SERVER_6}/64 dev eth0 nodad"))?;
        self.ip(Host::Gateway, "address add fd99::1/64 dev lan nodad")?;
        self.ip(Host::Lan, "route add default via 10.99.0.1")?;
        self.ip(Host::Lan, "route add default via fd99::1")?;
        for sysctl in ["ipv4/ip_forward", "ipv6/conf/all/forwarding"] {
            let write = format!("echo 1 > /proc/sys/net/{sysctl}");
            run(self.on(Host::Gateway).args(["sh", "-c", &write]))?;
        }
        Ok(())
    }

    fn tunnels(&mut self, stage: &Stage) -> Result<()> {
        let gateway_key = self.open(stage, Host::Gateway)?;
        let interface = self.gateway_interface();
        self.ip(Host::Gateway, &format!("address add 10.88.0.1/24 dev {interface}"))?;
        self.ip(Host::Gateway, &format!("address add fd88::1/64 dev {interface} nodad"))?;
        for Peer { host, outer, gateway, inner_4, inner_6, identity: _ } in &PEERS {
            self.cable(*host, outer, gateway)?;
            let key = self.open(stage, *host)?;
            let inner = format!("{inner_4}/32,{inner_6}/128");
            self.wg(Host::Gateway, &["peer", &key, "allowed-ips", &inner])?;
            let endpoint = format!("{gateway}:{PORT}");
            let all = "10.88.0.0/24,10.99.0.0/24,fd88::/64,fd99::/64";
            let peer = ["peer", &gateway_key, "endpoint", &endpoint, "allowed-ips", all];
            self.wg(*host, &peer)?;
            let interface = self.interface(*host);
            self.ip(*host, &format!("address add {inner_4}/24 dev {interface}"))?;
            self.ip(*host, &format!("address add {inner_6}/64 dev {interface} nodad"))?;
            self.ip(*host, &format!("route add 10.99.0.0/24 dev {interface}"))?;
            self.ip(*host, &format!("route add fd99::/64 dev {interface}"))?;
            self.public_keys.push(key);
        }
        Ok(())
    }

    /// Makes a host's WireGuard interface, up and with a new key; returns the public key.
    fn open(&self, stage: &Stage, host: Host) -> Result<String> {
        let name = self.interface(host);
        match self.kind {
            // The probe has made this one.
            Kind::Kernel if host == Host::Gateway => {}
            Kind::Kernel => self.ip(host, &format!("link add {name} type wireguard"))?,
            Kind::Userspace => {
                let socket = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
                stage.file(&socket)?;
                let mut daemon = self.on(host);
                daemon.args(["wireguard-go", "--foreground", &name]);
                daemon.env("LOG_LEVEL", "error").stdout(Stdio::null()).stderr(Stdio::null());
                stage.spawn(&mut daemon)?;
                if !wait_until(Duration::from_secs(5), || socket.exists()) {
                    bail!("wireguard-go did not start");
                }
            }
        }
        let private = read(&mut command(["wg", "genkey"]))?;
        let mut keys = tempfile::NamedTempFile::new()?;
        keys.write_all(private.as_bytes())?;
        let file = keys.path().to_str().context("odd temporary directory")?;
        self.wg(host, &["listen-port", PORT, "private-key", file])?;
        self.ip(host, &format!("link set {name} up"))?;
        Ok(read(self.on(host).args(["wg", "show", &name, "public-key"]))?.trim().to_owned())
    }

    /// Connects a host's `eth0` to the gateway's interface of the host's name.
    fn cable(&self, host: Host, address: &str, gateway: &str) -> Result<()> {
        let (here, there) = (self.namespace(host), host.name());
        let make = format!("link add {there} type veth peer name eth0 netns {here}");
        self.ip(Host::Gateway, &make)?;
        for (end, interface, address) in [(Host::Gateway, there, gateway), (host, "eth0", address)]
        {
            self.ip(end, &format!("address add {address}/24 dev {interface}"))?;
            self.ip(end, &format!("link set {interface} up"))?;
        }
        Ok(())
    }

    fn role(&self, host: Host) -> Result<Command> {
        let mut role = self.on(host);
        role.arg(std::env::current_exe()?).arg("demo-role");
        Ok(role)
    }

    fn namespace(&self, host: Host) -> String {
        format!("fd-{}-{}", host.name(), self.id)
    }

    /// At most 15 letters, and unique on the machine: wireguard-go's sockets share one directory.
    fn interface(&self, host: Host) -> String {
        match host {
            Host::Gateway => format!("wgdemo{}", self.id),
            other => format!("wg{}{}", other.name(), self.id),
        }
    }

    fn ip(&self, host: Host, words: &str) -> Result<()> {
        let namespace = self.namespace(host);
        run(command(["ip", "-n", &namespace]).args(words.split(' ')))
    }

    fn wg(&self, host: Host, words: &[&str]) -> Result<()> {
        run(self.on(host).args(["wg", "set", &self.interface(host)]).args(words))
    }
}
