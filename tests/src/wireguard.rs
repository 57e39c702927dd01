//! One WireGuard interface, the kernel's or wireguard-go's, and its peers.

use std::{
    env, fs,
    io::Write as _,
    os::unix::net::UnixStream,
    process::{Child, Command, Stdio},
    sync::OnceLock,
};

use crate::{counters, namespace::Namespace, wait};

/// Who moves the packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// The kernel.
    Kernel,
    /// wireguard-go.
    Userspace,
}

/// The backend of this run: `FLOWD_TEST_WG`, else the kernel's where it has one.
pub fn backend() -> Backend {
    static BACKEND: OnceLock<Backend> = OnceLock::new();
    *BACKEND.get_or_init(|| match env::var("FLOWD_TEST_WG").as_deref() {
        Ok("kernel") => Backend::Kernel,
        Ok("userspace") => Backend::Userspace,
        Ok(other) => panic!("FLOWD_TEST_WG is {other}; it must be kernel or userspace"),
        Err(_) => {
            let probe = Namespace::new("probe");
            let added = probe.command("ip").args(["link", "add", "type", "wireguard"]).output();
            match added {
                Ok(output) if output.status.success() => Backend::Kernel,
                _ => Backend::Userspace,
            }
        }
    })
}

/// A key pair, as `wg` writes it.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Base64.
    pub private: String,
    /// Base64.
    pub public: String,
}

impl Keys {
    /// A new pair.
    pub fn new() -> Self {
        let private = wg_filter("genkey", "");
        let public = wg_filter("pubkey", &private);
        Self { private, public }
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

fn wg_filter(command: &str, input: &str) -> String {
    let mut child = Command::new("wg")
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("`wg` is installed");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("`wg` reads");
    drop(stdin);
    let output = child.wait_with_output().expect("`wg` ends");
    assert!(output.status.success(), "wg {command}");
    String::from_utf8(output.stdout).expect("base64").trim().to_owned()
}

/// An interface that is up; dropping it takes it down.
#[derive(Debug)]
pub struct WgLink {
    name: String,
    process: Option<Child>,
}

impl WgLink {
    /// Makes `name`, up and quiet, with its key; addresses and peers come after.
    pub fn create(namespace: &Namespace, name: &str, keys: &Keys, port: u16) -> Self {
        let process = match backend() {
            Backend::Kernel => {
                namespace.ip(&format!("link add {name} type wireguard"));
                None
            }
            Backend::Userspace => Some(start_wireguard_go(namespace, name)),
        };
        let link = Self { name: name.to_owned(), process };
        let key_file = namespace.sockets().join(format!("{name}.key"));
        fs::write(&key_file, &keys.private).expect("a file for the key");
        let key_path = key_file.to_str().expect("UTF-8");
        let port = port.to_string();
        namespace.output("wg", &["set", name, "private-key", key_path, "listen-port", &port]);
        // No multicast and no link-local address: nothing speaks here but the tests. A long queue:
        // a TUN device drops what does not fit, after flowd has seen it.
        namespace.ip(&format!("link set {name} mtu 1420 multicast off txqueuelen 20000"));
        namespace.ip(&format!("link set {name} addrgenmode none"));
        namespace.ip(&format!("link set {name} up"));
        link
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Takes it down and waits until it is gone.
    pub fn remove(mut self, namespace: &Namespace) {
        match self.process.take() {
            None => drop(namespace.ip(&format!("link del {}", self.name))),
            Some(child) => terminate(child),
        }
        wait::until(wait::SOON, "the interface is gone", || {
            !counters::link_exists(namespace, &self.name)
        });
    }
}

impl Drop for WgLink {
    fn drop(&mut self) {
        let Self { name: _, process } = self;
        if let Some(child) = process.take() {
            terminate(child);
        }
    }
}

fn start_wireguard_go(namespace: &Namespace, name: &str) -> Child {
    let child = namespace
        .command("wireguard-go")
        .args(["--foreground", name])
        .env("LOG_LEVEL", "silent")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("wireguard-go is installed");
    let socket = namespace.sockets().join(format!("{name}.sock"));
    // The file is there before anybody listens; `wg` takes that for a dead one, and removes it.
    wait::until(wait::SOON, "wireguard-go's socket", || UnixStream::connect(&socket).is_ok());
    child
}

/// SIGTERM, so that wireguard-go removes its socket, and the end of the process.
fn terminate(mut child: Child) {
    let pid = libc::pid_t::try_from(child.id()).expect("pids fit");
    // SAFETY: the process is our child and not yet waited for, so the id is still its own.
    let sent = unsafe { libc::kill(pid, libc::SIGTERM) };
    if sent != 0 {
        let _ = child.kill();
    }
    let _ = child.wait();
}

/// A peer of an interface, as `wg show IF dump` tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerDump {
    /// Base64.
    pub public_key: String,
    /// As prefixes.
    pub allowed_ips: Vec<String>,
    /// Unix seconds; zero: never.
    pub latest_handshake: u64,
    /// Outer bytes received.
    pub rx_bytes: u64,
    /// Outer bytes sent.
    pub tx_bytes: u64,
}

/// The peers of `interface`.
pub fn peers(namespace: &Namespace, interface: &str) -> Vec<PeerDump> {
    let dump = namespace.output("wg", &["show", interface, "dump"]);
    dump.lines().skip(1).map(parse_peer).collect()
}

fn parse_peer(line: &str) -> PeerDump {
    let fields: Vec<&str> = line.split('\t').collect();
    let number = |index: usize| fields[index].parse().expect("a number");
    PeerDump {
        public_key: fields[0].to_owned(),
        allowed_ips: fields[3].split(',').map(str::to_owned).collect(),
        latest_handshake: number(4),
        rx_bytes: number(5),
        tx_bytes: number(6),
    }
}

/// Adds a peer, or sets the allowed addresses of one that is there.
pub fn set_peer(
    namespace: &Namespace,
    interface: &str,
    public_key: &str,
    allowed_ips: &str,
    endpoint: Option<&str>,
) {
    let mut args = vec!["set", interface, "peer", public_key, "allowed-ips", allowed_ips];
    if let Some(endpoint) = endpoint {
        args.extend(["endpoint", endpoint]);
    }
    namespace.output("wg", &args);
}

/// Makes an interface send from another port, and listen on it.
pub fn move_to_port(namespace: &Namespace, interface: &str, port: u16) {
    namespace.output("wg", &["set", interface, "listen-port", &port.to_string()]);
}

/// Takes a peer away.
pub fn remove_peer(namespace: &Namespace, interface: &str, public_key: &str) {
    namespace.output("wg", &["set", interface, "peer", public_key, "remove"]);
}
