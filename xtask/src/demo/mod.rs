//! `cargo xtask demo`: a WireGuard network in namespaces, traffic on it, and what flowd says of it.

mod network;
mod role;
mod stage;

pub(crate) use self::role::Role;

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use self::network::{Host, Network};
use self::stage::Stage;
use crate::command::{as_root, command, is_root, read, run as run_command, wait_until};
use crate::setup::{self, Purpose};
use crate::test::build_release;

/// How the demo is run; hidden flags.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    pub(crate) no_build: bool,
    pub(crate) without_flowd: bool,
}

/// How long the long transfer takes.
const TRANSFER: Duration = Duration::from_secs(12);

/// How often flowd reads the kernel's counters here, with room for what comes after.
const SETTLE: Duration = Duration::from_millis(1500);

/// Builds flowd as whoever calls, and shows it as root.
pub(crate) fn run(options: Options) -> Result<()> {
    if !options.no_build {
        setup::ensure(&[Purpose::Demo])?;
        if !options.without_flowd {
            build_release()?;
        }
    }
    if !is_root() {
        let mut again = as_root([std::env::current_exe()?])?;
        again.args(["demo", "--no-build"]);
        if options.without_flowd {
            again.arg("--without-flowd");
        }
        return run_command(&mut again);
    }
    let stage = Stage::open()?;
    show(&stage, options).and_then(|()| stage.check())
}

fn show(stage: &Stage, options: Options) -> Result<()> {
    let network = Network::build(stage)?;
    println!("{}", network.picture());
    println!("WireGuard: {}\n", network.kind());
    let files = stage.directory()?;
    // Beside this program's own profile directory, wherever cargo was told to build.
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).context("xtask was not built by cargo")?;
    let binaries = target.join("release");
    let flowd = Flowd { binaries, socket: files.join("flowd.sock") };
    if !options.without_flowd {
        flowd.start(stage, &network, &files)?;
    }

    println!("Traffic: bob copies a backup in the background; alice pings, asks DNS, reads a page");
    let transfer = network.start(stage, Host::Bob, &transfer_words())?;
    network.traffic()?;
    stage.pause(SETTLE)?;
    if !options.without_flowd {
        println!("While the backup runs:");
        flowd.ctl(&["status"])?;
        flowd.ctl(&["peers"])?;
        flowd.ctl(&["flows", "--state", "open"])?;
    }
    stage.wait(transfer, TRANSFER * 3).context("the backup")?;
    stage.pause(SETTLE)?;
    println!("Now everything is done:");
    network.counters()?;
    if !options.without_flowd {
        flowd.ctl(&["summary"])?;
        flowd.ctl(&["top"])?;
        flowd.ctl(&["top", "--by", "dst", "--sort", "flows"])?;
        flowd.ctl(&["flows"])?;
        flowd.ctl(&["flow", &flowd.biggest()?])?;
        show_policy(&flowd, &network, stage, &files)?;
    }
    Ok(())
}

/// A policy that lets peers read pages and ask for names, and observes what else they do.
const POLICY: &str = r#"mode = "observe"
default = "deny"

[resources]
intranet = ["10.99.0.10", "fd99::10"]

[[rules]]
id = "web"
action = "allow"
from = ["any"]
to = ["resource:intranet"]
protocols = ["tcp"]
ports = ["80"]

[[rules]]
id = "dns"
action = "allow"
from = ["any"]
to = ["resource:intranet"]
protocols = ["udp"]
ports = ["53"]
"#;

fn show_policy(flowd: &Flowd, network: &Network, stage: &Stage, files: &Path) -> Result<()> {
    let policy = files.join("policy.toml");
    fs::write(&policy, POLICY)?;
    println!("\nA policy, which only observes for now:\n\n{POLICY}");
    let policy = policy.to_string_lossy();
    flowd.ctl(&["policy", "replay", &policy])?;
    flowd.ctl(&["policy", "apply", &policy])?;
    network.traffic()?;
    stage.pause(SETTLE)?;
    flowd.ctl(&["flows", "--verdict", "deny"])?;
    flowd.ctl(&["policy", "show"])?;
    flowd.ctl(&["policy", "why", "10.88.0.2", network::SERVER_4, "--port", "80"])
}

fn transfer_words() -> [String; 4] {
    let milliseconds = TRANSFER.as_millis().to_string();
    ["download".into(), network::SERVER_4.into(), "--milliseconds".into(), milliseconds]
}

/// The daemon on the gateway and its client.
struct Flowd {
    binaries: PathBuf,
    socket: PathBuf,
}

impl Flowd {
    fn start(&self, stage: &Stage, network: &Network, files: &Path) -> Result<()> {
        let config = files.join("flowd.toml");
        let peers = files.join("peers.toml");
        fs::write(&peers, network.identities())?;
        fs::write(&config, self.config(&network.gateway_interface(), files, &peers))?;
        let mut flowd = network.on(Host::Gateway);
        flowd.arg(self.binaries.join("flowd")).arg("--config").arg(&config);
        let log = files.join("flowd.log");
        let output = fs::File::create(&log)?;
        flowd.stdout(output.try_clone()?).stderr(output);
        stage.spawn(&mut flowd)?;
        if !wait_until(Duration::from_secs(10), || UnixStream::connect(&self.socket).is_ok()) {
            stage.check()?;
            bail!("flowd did not start: {}", fs::read_to_string(&log).unwrap_or_default().trim());
        }
        Ok(())
    }

    fn config(&self, interface: &str, files: &Path, peers: &Path) -> String {
        format!(
            "gateway = \"demo-gw\"
interfaces = [\"{interface}\"]
[store]
path = \"{0}/store\"
[api]
socket = \"{1}\"
[flows]
drain_interval_ms = 500
active_timeout_ms = 2000
[identity]
peers = \"{2}\"
wireguard = []
networkd = []
[policy]
file = \"{0}/policy-of-the-demo.toml\"
[datapath]
pins = \"{0}/bpf\"
",
            files.display(),
            self.socket.display(),
            peers.display()
        )
    }

    /// Shows a command and what it prints.
    fn ctl(&self, words: &[&str]) -> Result<()> {
        println!("\n$ flowctl {}", words.join(" "));
        run_command(self.flowctl().args(words))
    }

    fn flowctl(&self) -> Command {
        let mut flowctl = command([self.binaries.join("flowctl")]);
        flowctl.arg("--socket").arg(&self.socket);
        flowctl
    }

    /// The id of the flow that moved most bytes.
    fn biggest(&self) -> Result<String> {
        let flows = read(self.flowctl().args(["flows", "-o", "jsonl"]))?;
        let bytes = |flow: &serde_json::Value| {
            let count = |name: &str| flow["total"][name].as_u64().unwrap_or(0);
            count("rx_bytes") + count("tx_bytes")
        };
        let flows = flows.lines().filter_map(|line| serde_json::from_str(line).ok());
        let biggest = flows.max_by_key(bytes).context("flowctl shows no flow")?;
        Ok(biggest["flow_id"].as_str().context("a flow without flow_id")?.to_owned())
    }
}
