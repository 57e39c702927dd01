//! What a configuration file may say: everything optional, nothing trusted.

use std::{ops::RangeInclusive, path::PathBuf, time::Duration};

use flowd_common::limits;
use serde::Deserialize;

use super::{Config, Problem, grants, metrics, range};
use crate::{
    dataplane::Order,
    identity::Sources,
    policy::Limits,
    store::{MaxBytes, NotASize, Retention, Synchronous, TAIL_RECORDS},
};

/// The keys of each table; the empty name is the top. A test holds them against the structs.
pub(super) const KEYS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "gateway",
            "interfaces",
            "store",
            "api",
            "flows",
            "identity",
            "policy",
            "datapath",
            "audit",
            "metrics",
        ],
    ),
    ("store", &["path", "synchronous", "retention_days", "max_bytes", "tail_records", "keys"]),
    ("api", &["socket", "query_timeout_ms", "read_groups", "admin_groups", "grants"]),
    (
        "flows",
        &[
            "table_size",
            "drain_interval_ms",
            "active_timeout_ms",
            "idle_timeout_ms",
            "tcp_idle_timeout_ms",
            "linger_ms",
        ],
    ),
    ("identity", &["peers", "wireguard", "networkd", "copy"]),
    ("datapath", &["pins", "order"]),
    ("metrics", &["listen", "peers", "max_peers"]),
    ("audit", &["retention_days"]),
    ("policy", &["file", "max_prefixes", "max_pairs", "max_intervals"]),
];

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    gateway: Option<String>,
    interfaces: Vec<String>,
    store: Store,
    api: Api,
    flows: Flows,
    identity: Identity,
    policy: Policy,
    datapath: Datapath,
    audit: Audit,
    metrics: metrics::Table,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Store {
    path: Option<PathBuf>,
    synchronous: Option<String>,
    retention_days: Option<u64>,
    max_bytes: Option<String>,
    tail_records: Option<u64>,
    keys: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Api {
    socket: Option<PathBuf>,
    query_timeout_ms: Option<u64>,
    read_groups: Option<Vec<String>>,
    admin_groups: Option<Vec<String>>,
    grants: Vec<grants::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Audit {
    retention_days: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Flows {
    table_size: Option<u64>,
    drain_interval_ms: Option<u64>,
    active_timeout_ms: Option<u64>,
    idle_timeout_ms: Option<u64>,
    tcp_idle_timeout_ms: Option<u64>,
    linger_ms: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Identity {
    peers: Option<PathBuf>,
    wireguard: Option<Vec<PathBuf>>,
    networkd: Option<Vec<PathBuf>>,
    copy: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Datapath {
    pins: Option<PathBuf>,
    order: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Policy {
    file: Option<PathBuf>,
    max_prefixes: Option<u64>,
    max_pairs: Option<u64>,
    max_intervals: Option<u64>,
}

impl File {
    /// Fills in the defaults; what is wrong goes to `problems`, and then the result is not to be
    /// used.
    pub(super) fn into_config(self, problems: &mut Vec<Problem>) -> Config {
        let Self {
            gateway,
            interfaces,
            store,
            api,
            flows,
            identity,
            policy,
            datapath,
            audit,
            metrics,
        } = self;
        check_gateway(gateway.as_deref(), problems);
        check_interfaces(&interfaces, problems);
        let mut number = |key, value: Option<u64>, range: RangeInclusive<u64>, default: u64| {
            let value = value.unwrap_or(default);
            if !range.contains(&value) {
                problems.push(Problem::out_of_range(key, value, &range));
            }
            value
        };
        let table_size = number(
            "flows.table_size",
            flows.table_size,
            range::TABLE_SIZE,
            u64::from(limits::DEFAULT_FLOWS),
        );
        let mut entries = |key, value| {
            number(key, value, range::POLICY_ENTRIES, range::DEFAULT_POLICY_ENTRIES) as usize
        };
        let limits = Limits {
            endpoints: entries("policy.max_prefixes", policy.max_prefixes),
            pairs: entries("policy.max_pairs", policy.max_pairs),
            intervals: entries("policy.max_intervals", policy.max_intervals),
        };
        let days = number(
            "store.retention_days",
            store.retention_days,
            range::RETENTION_DAYS,
            u64::from(Retention::default().days),
        );
        let audit_days = number(
            "audit.retention_days",
            audit.retention_days,
            range::RETENTION_DAYS,
            range::DEFAULT_AUDIT_DAYS,
        );
        let tail_records = number(
            "store.tail_records",
            store.tail_records,
            range::TAIL_RECORDS,
            u64::from(TAIL_RECORDS),
        );
        let mut millis =
            |key, value, range, default| Duration::from_millis(number(key, value, range, default));
        let drain_interval = millis(
            "flows.drain_interval_ms",
            flows.drain_interval_ms,
            range::DRAIN_INTERVAL_MS,
            5_000,
        );
        let active_timeout = millis(
            "flows.active_timeout_ms",
            flows.active_timeout_ms,
            range::ACTIVE_TIMEOUT_MS,
            60_000,
        );
        let idle_timeout =
            millis("flows.idle_timeout_ms", flows.idle_timeout_ms, range::IDLE_TIMEOUT_MS, 60_000);
        let tcp_idle_timeout = millis(
            "flows.tcp_idle_timeout_ms",
            flows.tcp_idle_timeout_ms,
            range::TCP_IDLE_TIMEOUT_MS,
            600_000,
        );
        let linger = millis("flows.linger_ms", flows.linger_ms, range::LINGER_MS, 5_000);
        let query_timeout =
            millis("api.query_timeout_ms", api.query_timeout_ms, range::QUERY_TIMEOUT_MS, 30_000);
        let mut groups = |key, names: Option<Vec<String>>, default: &[&str]| {
            let names =
                names.unwrap_or_else(|| default.iter().map(|name| (*name).to_owned()).collect());
            if names.iter().any(|name| name.is_empty() || name.chars().any(char::is_control)) {
                problems.push(Problem::new(format!(
                    "`{key}` has a name that no group can have; write names or numbers of groups"
                )));
            }
            names
        };
        let read_groups = groups("api.read_groups", api.read_groups, &["flowd"]);
        let admin_groups = groups("api.admin_groups", api.admin_groups, &[]);
        let grants = api.grants.into_iter().map(|table| table.into_grant(problems)).collect();
        let synchronous = synchronous(store.synchronous.as_deref(), problems);
        let retention = Retention {
            days: u32::try_from(days).unwrap_or(u32::MAX),
            max_bytes: max_bytes(store.max_bytes.as_deref(), problems),
        };
        let order = order(datapath.order.as_deref(), problems);
        let metrics = metrics.into_metrics(problems);
        let mut path = |key, value: Option<PathBuf>, default: &str| {
            let value = value.unwrap_or_else(|| default.into());
            if !value.is_absolute() {
                problems.push(Problem::relative(key, &value));
            }
            value
        };
        let socket = path("api.socket", api.socket, super::DEFAULT_SOCKET);
        let keys = store.keys;
        let store = path("store.path", store.path, "/var/lib/flowd");
        let keys = path("store.keys", Some(keys.unwrap_or_else(|| store.join("keys"))), "");
        let peers = path("identity.peers", identity.peers, "/etc/flowd/peers.toml");
        let copy = path("identity.copy", identity.copy, "/run/flowd/names/peers.toml");
        let mut paths = |key, value: Option<Vec<PathBuf>>, default: &str| -> Vec<PathBuf> {
            let value = value.unwrap_or_else(|| vec![default.into()]);
            value.into_iter().map(|value| path(key, Some(value), "")).collect()
        };
        let wireguard = paths("identity.wireguard", identity.wireguard, "/etc/wireguard");
        let networkd = paths("identity.networkd", identity.networkd, "/etc/systemd/network");
        let pins = path("datapath.pins", datapath.pins, "/sys/fs/bpf/flowd");
        let policy_file = path("policy.file", policy.file, "/etc/flowd/policy.toml");
        if socket.as_os_str().len() > range::SOCKET_BYTES {
            problems.push(Problem::too_long("api.socket", &socket, range::SOCKET_BYTES));
        }
        Config {
            store,
            keys,
            synchronous,
            retention,
            tail_records: u32::try_from(tail_records).unwrap_or(TAIL_RECORDS),
            socket,
            query_timeout,
            read_groups,
            admin_groups,
            grants,
            audit_retention_days: u32::try_from(audit_days).unwrap_or(u32::MAX),
            names: Sources { peers, wireguard, networkd, copy },
            policy_file,
            pins,
            order,
            limits,
            metrics,
            gateway: gateway.unwrap_or_else(host_name),
            interfaces,
            table_size: u32::try_from(table_size).unwrap_or(limits::MAX_FLOWS),
            drain_interval,
            active_timeout,
            idle_timeout,
            tcp_idle_timeout,
            linger,
        }
    }
}

fn synchronous(word: Option<&str>, problems: &mut Vec<Problem>) -> Synchronous {
    match word {
        None | Some("normal") => Synchronous::Normal,
        Some("full") => Synchronous::Full,
        Some(other) => {
            let other = other.escape_debug();
            problems.push(Problem::new(format!(
                "`store.synchronous` is `{other}`; it must be `normal` or `full`"
            )));
            Synchronous::Normal
        }
    }
}

fn order(word: Option<&str>, problems: &mut Vec<Problem>) -> Order {
    match word {
        None | Some("last") => Order::Last,
        Some("first") => Order::First,
        Some(other) => {
            let other = other.escape_debug();
            problems.push(Problem::new(format!(
                "`datapath.order` is `{other}`; it must be `first` or `last`"
            )));
            Order::Last
        }
    }
}

fn max_bytes(text: Option<&str>, problems: &mut Vec<Problem>) -> MaxBytes {
    let Some(text) = text else { return MaxBytes::default() };
    text.parse().unwrap_or_else(|NotASize| {
        let text = text.escape_debug();
        problems.push(Problem::new(format!(
            "`store.max_bytes` is `{text}`; write a size such as `20GB`, a share such as `50%`, \
             or `none`"
        )));
        MaxBytes::default()
    })
}

fn check_gateway(gateway: Option<&str>, problems: &mut Vec<Problem>) {
    match gateway {
        Some("") => problems
            .push(Problem::new("`gateway` is empty; leave it out to use the host name".into())),
        Some(name) if name.chars().any(char::is_control) || name.len() > 255 => problems
            .push(Problem::new("`gateway` must be at most 255 bytes of printable text".into())),
        _ => {}
    }
}

fn check_interfaces(interfaces: &[String], problems: &mut Vec<Problem>) {
    for name in interfaces {
        let text = if name.is_empty() {
            "`interfaces` has an empty name; write a name or a glob such as `wg*`".to_owned()
        } else if name.len() >= libc::IFNAMSIZ && !is_glob(name) {
            format!(
                "`interfaces` has `{name}`; a name has {} characters at most",
                libc::IFNAMSIZ - 1
            )
        } else if name.contains('/') || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
            format!("`interfaces` has {name:?}; no interface can be called that")
        } else {
            continue;
        };
        problems.push(Problem::new(text));
    }
}

/// Whether an entry of `interfaces` is a pattern rather than a name.
pub(crate) fn is_glob(name: &str) -> bool {
    name.contains(['*', '?', '[', '{'])
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{File, KEYS};

    #[test]
    fn the_list_of_keys_is_the_structs() {
        for (table, keys) in KEYS {
            let probe = if table.is_empty() {
                "?? = 1".replace("??", "zz")
            } else {
                format!("[{table}]\nzz = 1")
            };
            let error = toml::from_str::<File>(&probe).unwrap_err().message().to_owned();
            for key in *keys {
                assert!(error.contains(&format!("`{key}`")), "{table}.{key}: {error}");
            }
            assert_eq!(error.matches('`').count() / 2, keys.len() + 1, "{error}");
        }
    }
}
