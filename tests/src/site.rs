//! What one gateway's flowd keeps: configuration, store, socket, log. It outlives the daemon, so
//! that a test can start another one in its place.

use std::{
    collections::BTreeMap,
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Instant,
};

use tempfile::TempDir;

use crate::{
    daemon::Daemon,
    flowctl::Flowctl,
    mount,
    namespace::Namespace,
    topology::Topology,
    wait,
    wireguard::{Backend, backend},
};

/// The `[flows]` table and the interfaces; everything else is the same in every test.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names or globs.
    pub interfaces: &'static [&'static str],
    /// Flows that fit.
    pub table_size: u32,
    /// Between drains.
    pub drain_interval_ms: u32,
    /// Between records of a living flow.
    pub active_timeout_ms: u32,
    /// Of everything but TCP.
    pub idle_timeout_ms: u32,
    /// How long an ended TCP flow stays.
    pub linger_ms: u32,
    /// Records that become a chunk together; few, so that every store has rows and chunks.
    pub tail_records: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            interfaces: &["wg*"],
            table_size: 4096,
            drain_interval_ms: 200,
            active_timeout_ms: 60_000,
            idle_timeout_ms: 60_000,
            linger_ms: 500,
            tail_records: 16,
        }
    }
}

/// What makes a program what systemd/flowd.service makes of flowd. wireguard-go lets only root ask, and
/// ends when its socket gets another owner or mode, so that there one capability more is needed.
fn confinement() -> Vec<String> {
    let more = if backend() == Backend::Userspace { ",+dac_override" } else { "" };
    let set = |name: &str| format!("--{name}=-all,+bpf,+net_admin,+perfmon{more}");
    let mut words: Vec<_> = ["inh-caps", "ambient-caps", "bounding-set"].map(set).into();
    let user = ["--reuid=nobody", "--regid=nogroup", "--clear-groups", "--no-new-privs"];
    words.extend(user.map(str::to_owned));
    // The kernel forgets it when a process becomes another user's.
    words.push("--pdeathsig=KILL".to_owned());
    words
}

/// A directory with all that one flowd uses.
#[derive(Debug)]
pub struct Site {
    dir: TempDir,
    /// Another flowd than the usual one.
    program: Option<PathBuf>,
    /// Whether it runs as the packaged service does.
    is_confined: bool,
    /// What the daemon finds in its environment.
    environment: BTreeMap<&'static str, String>,
}

impl Site {
    /// An empty one with these settings, that knows the peers of `topology` by name.
    pub fn new(topology: &Topology, settings: &Settings) -> Self {
        let site = Self {
            dir: tempfile::tempdir().expect("a directory"),
            program: None,
            is_confined: false,
            environment: BTreeMap::new(),
        };
        let mut peers = String::new();
        for peer in &topology.peers {
            let (name, key) = (&peer.name, &peer.keys.public);
            writeln!(
                peers,
                "[[peers]]\npublic_key = \"{key}\"\nname = \"{name}\"\nuser = \"{name}@example.com\"\n\
                 device = \"laptop\"\ngroups = [\"test\"]\n"
            )
            .expect("a string grows");
        }
        mount::bpf(&site.path("bpf"));
        site.write("peers.toml", &peers);
        site.configure(&site.config(settings));
        site
    }

    /// The text of a configuration with these settings.
    pub fn config(&self, settings: &Settings) -> String {
        let Settings {
            interfaces,
            table_size,
            drain_interval_ms,
            active_timeout_ms,
            idle_timeout_ms,
            linger_ms,
            tail_records,
        } = settings;
        format!(
            "gateway = \"test-gw\"\ninterfaces = {interfaces:?}\n\
             [store]\npath = {:?}\ntail_records = {tail_records}\n[api]\nsocket = {:?}\n\
             [identity]\npeers = {:?}\nwireguard = [{:?}]\nnetworkd = [{:?}]\ncopy = {:?}\n\
             [flows]\ntable_size = {table_size}\ndrain_interval_ms = {drain_interval_ms}\n\
             active_timeout_ms = {active_timeout_ms}\nidle_timeout_ms = {idle_timeout_ms}\n\
             linger_ms = {linger_ms}\n[policy]\nfile = {:?}\n[datapath]\npins = {:?}\n",
            self.path("store"),
            self.socket(),
            self.path("peers.toml"),
            self.path("wireguard"),
            self.path("networkd"),
            self.path("names.toml"),
            self.path("policy.toml"),
            self.path("bpf/flowd"),
        )
    }

    /// Replaces the configuration by this text.
    pub fn configure(&self, text: &str) {
        self.write("flowd.toml", text);
    }

    /// Puts a file of this site into its place, whole: nobody ever reads half of it.
    pub fn write(&self, name: &str, text: &str) {
        let (path, new) = (self.path(name), self.path("new"));
        fs::create_dir_all(path.parent().expect("it is in the site")).expect("room");
        fs::write(&new, text).expect("room");
        fs::rename(&new, &path).expect("the same file system");
    }

    /// Starts the daemon and waits until it answers.
    pub fn start(&self, namespace: &Namespace) -> Daemon {
        Daemon::start(self, namespace)
    }

    /// From now on, runs the flowd that was built for tests, whose clock [`Self::set_clock`] sets.
    /// Whether there is one.
    pub fn use_failpoints(&mut self) -> bool {
        self.program = env::var_os("FLOWD_FAILPOINTS_BIN").map(PathBuf::from);
        self.program.is_some()
    }

    /// From now on, the daemon is nobody, with three capabilities, as the packaged service is.
    /// Everything of the site is that user's from here on.
    pub fn confine(&mut self) {
        self.is_confined = true;
        let mut command = Command::new("chown");
        let changed = command.args(["-R", "nobody"]).arg(self.dir.path());
        assert!(changed.status().expect("a system has chown").success(), "{changed:?}");
    }

    /// The daemons to come find this in their environment; `None`: no more.
    pub fn set_environment(&mut self, name: &'static str, value: Option<&str>) {
        match value {
            Some(value) => drop(self.environment.insert(name, value.to_owned())),
            None => drop(self.environment.remove(name)),
        }
    }

    /// Puts the daemon's wall clock forward by so much.
    pub fn set_clock(&self, offset_ms: i64) {
        self.write("clock", &offset_ms.to_string());
    }

    /// The daemon's command.
    pub fn flowd(&self, namespace: &Namespace) -> Command {
        let program = self.program.clone().unwrap_or_else(|| binary("FLOWD_BIN", "flowd"));
        let mut command = match self.is_confined {
            false => namespace.command(program),
            true => {
                let mut command = namespace.command("setpriv");
                command.args(confinement()).arg(program);
                command
            }
        };
        command.arg("--config").arg(self.path("flowd.toml"));
        command.env("FLOWD_TEST_CLOCK", self.path("clock")).envs(&self.environment);
        command
    }

    /// Runs the daemon, which is expected to refuse and end by itself. The line it left.
    pub fn refused(&self, namespace: &Namespace) -> String {
        one_line_of_failure(&ended(&mut self.flowd(namespace)), 1)
    }

    /// `flowd check-config`.
    pub fn check_config(&self, namespace: &Namespace) -> Output {
        let mut command = namespace.command(binary("FLOWD_BIN", "flowd"));
        ended(command.arg("check-config").arg(self.path("flowd.toml")))
    }

    /// The client on this site's socket.
    pub fn flowctl<'a>(&'a self, namespace: &'a Namespace) -> Flowctl<'a> {
        Flowctl::new(self, namespace)
    }

    /// Where the daemon listens.
    pub fn socket(&self) -> PathBuf {
        self.path("flowd.sock")
    }

    /// A file of this site.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        mount::release(&self.path("bpf"));
    }
}

/// What a program did that ends by itself, and soon. It prints less than a pipe holds.
pub fn ended(command: &mut Command) -> Output {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let deadline = Instant::now() + wait::SOON;
    wait::until(2 * wait::SOON, "it ends or is late", || {
        Instant::now() > deadline || child.try_wait().expect("our child").is_some()
    });
    let _ = child.kill(); // Only what is late is still there.
    child.wait_with_output().expect("our child")
}

/// The one line that a failed program printed; anything else is a panic.
pub fn one_line_of_failure(output: &Output, code: i32) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "more than one line: {stderr}");
    stderr
}

/// A program under test: the variable, else the release build, else the debug build.
pub fn binary(variable: &str, name: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    let test = env::current_exe().expect("/proc is mounted");
    // target/<profile>/deps/root-<hash>
    let target = test.ancestors().nth(3).expect("cargo built the test");
    ["release", "debug"]
        .map(|profile| target.join(profile).join(name))
        .into_iter()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no {name} in {}; build it or set {variable}", target.display()))
}
