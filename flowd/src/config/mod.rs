//! The configuration: what a file may say, and what the program runs with.
//!
//! A file is parsed and checked whole before anything is opened; what is wrong is told a line each.

mod check;
mod file;
mod grants;
mod metrics;
mod told;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

pub use check::{ConfigError, Problem};
pub(crate) use file::is_glob;
use flowd_common::limits;
pub use grants::Grant;
pub use told::changes;

use crate::{
    dataplane::Order,
    identity::Sources,
    policy::Limits,
    store::{Retention, Synchronous},
};

/// Where the configuration is when nobody says otherwise; it need not exist.
pub const DEFAULT_PATH: &str = "/etc/flowd/flowd.toml";
/// Where the socket is when nobody says otherwise.
pub const DEFAULT_SOCKET: &str = "/run/flowd/flowd.sock";

/// What the daemon runs with. Every value is valid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Id of this gateway in records.
    pub gateway: String,
    /// Names or globs of the interfaces to watch; empty: every WireGuard interface.
    pub interfaces: Vec<String>,
    /// Directory of the database.
    pub store: PathBuf,
    /// When a record is safe from a power failure.
    pub synchronous: Synchronous,
    /// What goes when.
    pub retention: Retention,
    /// Records that become a chunk together.
    pub tail_records: u32,
    /// Directory of the key that seals days.
    pub keys: PathBuf,
    /// Path of the API's socket.
    pub socket: PathBuf,
    /// How long a query may take.
    pub query_timeout: Duration,
    /// Groups whose members may read, by name or number.
    pub read_groups: Vec<String>,
    /// Groups whose members may change things and read the audit log.
    pub admin_groups: Vec<String>,
    /// Groups that see one peer or user at a time; the first one of whose group somebody is holds.
    pub grants: Vec<Grant>,
    /// Days that entries of the audit log are kept; 0: for ever.
    pub audit_retention_days: u32,
    /// Flows that the kernel's table holds.
    pub table_size: u32,
    /// How often the kernel's tables are read.
    pub drain_interval: Duration,
    /// How long a flow lives between two of its records.
    pub active_timeout: Duration,
    /// Quiet time after which a flow has ended.
    pub idle_timeout: Duration,
    /// The same for established TCP connections.
    pub tcp_idle_timeout: Duration,
    /// Quiet time after FIN both ways, or RST.
    pub linger: Duration,
    /// Where peers have names.
    pub names: Sources,
    /// The policy; it need not exist.
    pub policy_file: PathBuf,
    /// Where the kernel keeps what outlives the daemon: a directory of a BPF file system.
    pub pins: PathBuf,
    /// Where the programs hang among others.
    pub order: Order,
    /// How large the kernel's tables of a policy may become.
    pub limits: Limits,
    /// What `/metrics` tells, and where.
    pub metrics: Metrics,
}

/// What `/metrics` tells, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// Where it is served besides the socket: an address of this machine only.
    pub listen: Option<SocketAddr>,
    /// Peers that have series of their own.
    pub max_peers: usize,
}

impl Config {
    /// Reads and checks `path`.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
            .map_err(|problems| ConfigError::Invalid { path: path.to_owned(), problems })
    }

    /// Checks the text of a configuration file.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        check::unknown_keys(text)?;
        let file: file::File = toml::from_str(text)
            .map_err(|error| vec![Problem::of_toml(text, error.span(), error.message())])?;
        let mut problems = Vec::new();
        let config = file.into_config(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

impl Default for Config {
    fn default() -> Self {
        file::File::default().into_config(&mut Vec::new())
    }
}

/// The limits of the numbers in the file, in its own units.
mod range {
    use super::limits;

    pub(super) const TABLE_SIZE: std::ops::RangeInclusive<u64> =
        limits::MIN_FLOWS as u64..=limits::MAX_FLOWS as u64;
    pub(super) const DRAIN_INTERVAL_MS: std::ops::RangeInclusive<u64> = 100..=60_000;
    pub(super) const ACTIVE_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 100..=3_600_000;
    pub(super) const IDLE_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=86_400_000;
    pub(super) const TCP_IDLE_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=604_800_000;
    /// `sun_path` of unix(7) less its end and the suffix that a socket has until it is ready.
    pub(super) const SOCKET_BYTES: usize = 107 - ".4194304".len();
    pub(super) const POLICY_ENTRIES: std::ops::RangeInclusive<u64> = 1_000..=64_000_000;
    /// An entry takes 8 to 100 bytes of kernel memory, and only what a policy needs is taken.
    pub(super) const DEFAULT_POLICY_ENTRIES: u64 = 4_000_000;
    pub(super) const METRICS_PEERS: std::ops::RangeInclusive<u64> = 0..=10_000;
    /// Some 14 series each.
    pub(super) const DEFAULT_METRICS_PEERS: u64 = 1_000;
    /// Ten years; 0: for ever.
    pub(super) const RETENTION_DAYS: std::ops::RangeInclusive<u64> = 0..=3_650;
    pub(super) const DEFAULT_AUDIT_DAYS: u64 = 365;
    /// Two such chunks become one, which has [`crate::chunk::MAX_ROWS`] at most.
    pub(super) const TAIL_RECORDS: std::ops::RangeInclusive<u64> = 1..=262_144;
    pub(super) const QUERY_TIMEOUT_MS: std::ops::RangeInclusive<u64> = 1_000..=600_000;
    pub(super) const LINGER_MS: std::ops::RangeInclusive<u64> = 100..=600_000;
}

#[cfg(test)]
mod tests {
    use std::{path::Path, time::Duration};

    use super::Config;
    use crate::store::{MaxBytes, Synchronous};

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(Config::parse("").unwrap(), Config::default());
        assert_eq!(Config::default().drain_interval, Duration::from_secs(5));
        assert_eq!(Config::default().active_timeout, Duration::from_mins(1));
    }

    #[test]
    fn directories_of_names_may_be_others_or_none() {
        let text = "[identity]\nwireguard = []\nnetworkd = [\"/a\", \"/b\"]\n";
        let names = Config::parse(text).unwrap().names;
        assert!(names.wireguard.is_empty());
        assert_eq!(names.networkd, [Path::new("/a"), Path::new("/b")]);
        let names = Config::default().names;
        assert_eq!(names.peers, Path::new("/etc/flowd/peers.toml"));
        assert_eq!(names.wireguard, [Path::new("/etc/wireguard")]);
        assert_eq!(names.networkd, [Path::new("/etc/systemd/network")]);
    }

    #[test]
    fn the_example_is_the_default_with_everything_commented_out_or_in() {
        let text = include_str!("../../../systemd/flowd.toml");
        assert_eq!(Config::parse(text).unwrap(), Config::default());
        let uncommented: String = text
            .lines()
            .map(|line| line.strip_prefix("#= ").unwrap_or(line).to_owned() + "\n")
            .collect();
        let mut config = Config::parse(&uncommented).unwrap();
        config.gateway = Config::default().gateway;
        config.interfaces.clear();
        config.metrics.listen = None;
        config.grants.clear();
        assert_eq!(config, Config::default(), "the commented values are the defaults");
    }

    #[test]
    fn what_is_wrong_is_told_with_line_and_remedy() {
        let cases = [
            (
                "[flows]\ndrain_intervall_ms = 500\n",
                "line 2: unknown key `flows.drain_intervall_ms`; did you mean `drain_interval_ms`?",
            ),
            ("[sotre]\n", "line 1: unknown key `sotre`; did you mean `store`?"),
            (
                "colour = 1\n",
                "line 1: unknown key `colour`; known here are gateway, interfaces, store, api, flows, identity, policy, datapath, audit, metrics",
            ),
            (
                "[flows]\ndrain_interval_ms = 5\n",
                "`flows.drain_interval_ms` is 5; it must be 100 to 60000",
            ),
            (
                "[flows]\ntable_size = \"big\"\n",
                "line 2: `table_size = \"big\"`: invalid type: string \"big\", expected a whole number",
            ),
            ("interfaces = [\"\"]\n", "`interfaces` has an empty name"),
            (
                "interfaces = [\"a-name-that-is-too-long\"]\n",
                "`interfaces` has `a-name-that-is-too-long`; a name has 15 characters at most",
            ),
            ("gateway = \"\"\n", "`gateway` is empty; leave it out to use the host name"),
            ("[store]\npath = \"data\"\n", "`store.path` is `data`; it must be an absolute path"),
            (
                "[identity]\nwireguard = [\"/etc/wireguard\", \"wg\"]\n",
                "`identity.wireguard` is `wg`; it must be an absolute path",
            ),
            (
                "[identity]\nnetworkd = [\"a\\nb\"]\n",
                "`identity.networkd` is `a\\nb`; it must be an absolute path",
            ),
            (
                "[identity]\nnetworkd = \"/etc\"\n",
                "line 2: `networkd = \"/etc\"`: invalid type: string \"/etc\", expected a list",
            ),
            (
                "[identity]\nwireguad = []\n",
                "line 2: unknown key `identity.wireguad`; did you mean `wireguard`?",
            ),
            (
                "[store]\nsynchronous = \"off\"\n",
                "`store.synchronous` is `off`; it must be `normal` or `full`",
            ),
            (
                "[store]\nmax_bytes = \"20 GiBi\"\n",
                "`store.max_bytes` is `20 GiBi`; write a size such as `20GB`, a share such as `50%`, or `none`",
            ),
            ("[store]\nmax_bytes = \"0%\"\n", "`store.max_bytes` is `0%`; write a size"),
            (
                "[store]\nretention_days = 9999\n",
                "`store.retention_days` is 9999; it must be 0 to 3650",
            ),
            (
                "[api]\nread_groups = [\"\"]\n",
                "`api.read_groups` has a name that no group can have; write names or numbers",
            ),
            (
                "[audit]\nretention_days = 9999\n",
                "`audit.retention_days` is 9999; it must be 0 to 3650",
            ),
            ("gateway = \n", "line 1: "),
        ];
        for (text, expected) in cases {
            let problems = Config::parse(text).unwrap_err();
            let told = problems[0].to_string();
            assert!(told.starts_with(expected), "{text:?} -> {told:?}, expected {expected:?}");
            assert_eq!(told.lines().count(), 1, "{told:?}");
        }
    }

    #[test]
    fn the_store_takes_sizes_and_shares() {
        let cases = [
            ("none", MaxBytes::None),
            ("50%", MaxBytes::Percent(50)),
            ("20GB", MaxBytes::Bytes(20_000_000_000)),
            ("1.5 TB", MaxBytes::Bytes(1_500_000_000_000)),
            ("512MiB", MaxBytes::Bytes(512 << 20)),
            ("1000000", MaxBytes::Bytes(1_000_000)),
        ];
        for (text, expected) in cases {
            let text = format!("[store]\nmax_bytes = \"{text}\"\nsynchronous = \"full\"\n");
            let config = Config::parse(&text).unwrap();
            assert_eq!(config.retention.max_bytes, expected, "{text}");
            assert_eq!(config.synchronous, Synchronous::Full);
        }
        let retention = Config::default().retention;
        assert_eq!((retention.days, retention.max_bytes), (365, MaxBytes::Percent(50)));
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let text = "gateway = \"\"\n[flows]\ndrain_interval_ms = 1\nlinger_ms = 0\n";
        assert_eq!(Config::parse(text).unwrap_err().len(), 3);
    }
}
