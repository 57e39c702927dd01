//! The configuration as the audit log has it: what flowd runs with, defaults and all, key by key.

use std::{path::Path, time::Duration};

use serde_json::{Map, Value, json};

use super::{Config, Grant, Metrics};
use crate::{
    dataplane::Order,
    identity::Sources,
    policy::Limits,
    store::{MaxBytes, Retention, Synchronous},
};

impl Config {
    /// Every key with its value.
    pub fn told(&self) -> Map<String, Value> {
        let Self {
            gateway,
            interfaces,
            store,
            synchronous,
            retention,
            tail_records,
            keys,
            socket,
            query_timeout,
            read_groups,
            admin_groups,
            grants,
            audit_retention_days,
            table_size,
            drain_interval,
            active_timeout,
            idle_timeout,
            tcp_idle_timeout,
            linger,
            names,
            policy_file,
            pins,
            order,
            limits,
            metrics,
        } = self;
        let Retention { days, max_bytes } = retention;
        let Sources { peers, wireguard, networkd, copy } = names;
        let Limits { endpoints, pairs, intervals } = limits;
        let Metrics { listen, max_peers } = metrics;
        let paths = |paths: &[std::path::PathBuf]| -> Value {
            paths.iter().map(|path| self::path(path)).collect()
        };
        let synchronous = match synchronous {
            Synchronous::Normal => "normal",
            Synchronous::Full => "full",
        };
        let order = match order {
            Order::First => "first",
            Order::Last => "last",
        };
        let all = [
            ("gateway", json!(gateway)),
            ("interfaces", json!(interfaces)),
            ("store.path", path(store)),
            ("store.synchronous", json!(synchronous)),
            ("store.retention_days", json!(days)),
            ("store.max_bytes", json!(size(*max_bytes))),
            ("store.tail_records", json!(tail_records)),
            ("store.keys", path(keys)),
            ("api.socket", path(socket)),
            ("api.query_timeout_ms", millis(*query_timeout)),
            ("api.read_groups", json!(read_groups)),
            ("api.admin_groups", json!(admin_groups)),
            ("api.grants", grants.iter().map(grant).collect()),
            ("audit.retention_days", json!(audit_retention_days)),
            ("flows.table_size", json!(table_size)),
            ("flows.drain_interval_ms", millis(*drain_interval)),
            ("flows.active_timeout_ms", millis(*active_timeout)),
            ("flows.idle_timeout_ms", millis(*idle_timeout)),
            ("flows.tcp_idle_timeout_ms", millis(*tcp_idle_timeout)),
            ("flows.linger_ms", millis(*linger)),
            ("identity.peers", path(peers)),
            ("identity.wireguard", paths(wireguard)),
            ("identity.networkd", paths(networkd)),
            ("identity.copy", path(copy)),
            ("policy.file", path(policy_file)),
            ("policy.max_prefixes", json!(endpoints)),
            ("policy.max_pairs", json!(pairs)),
            ("policy.max_intervals", json!(intervals)),
            ("datapath.pins", path(pins)),
            ("datapath.order", json!(order)),
            ("metrics.listen", json!(listen.map(|address| address.to_string()))),
            ("metrics.max_peers", json!(max_peers)),
        ];
        all.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
    }
}

/// The keys whose values are others, with both of them; one that a version has not is null in it.
pub fn changes(before: &Map<String, Value>, now: &Map<String, Value>) -> Map<String, Value> {
    let keys = before.keys().chain(now.keys().filter(|key| !before.contains_key(*key)));
    keys.filter(|key| before.get(*key) != now.get(*key))
        .map(|key| (key.clone(), json!({ "old": before.get(key), "new": now.get(key) })))
        .collect()
}

fn path(path: &Path) -> Value {
    path.display().to_string().into()
}

fn millis(time: Duration) -> Value {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).into()
}

fn size(max_bytes: MaxBytes) -> String {
    match max_bytes {
        MaxBytes::None => "none".to_owned(),
        MaxBytes::Percent(share) => format!("{share}%"),
        MaxBytes::Bytes(bytes) => bytes.to_string(),
    }
}

fn grant(grant: &Grant) -> Value {
    let Grant { group, peers, users, addresses } = grant;
    json!({ "group": group, "peers": peers, "users": users, "addresses": addresses })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::changes;
    use crate::config::Config;

    #[test]
    fn what_has_another_value_is_told_with_both() {
        let before = Config::parse("[store]\nmax_bytes = \"20GB\"\n").unwrap().told();
        let text = "[api]\nread_groups = [\"ops\"]\n[store]\nmax_bytes = \"20GB\"\n";
        let now = Config::parse(text).unwrap().told();
        let told = changes(&before, &now);
        let expected = json!({ "api.read_groups": { "old": ["flowd"], "new": ["ops"] } });
        assert_eq!(serde_json::Value::Object(told), expected);
        assert!(changes(&now, &now).is_empty());
        let mut older = now.clone();
        older.remove("audit.retention_days");
        let told = changes(&older, &now);
        assert_eq!(told["audit.retention_days"], json!({ "old": null, "new": 365 }));
    }

    #[test]
    fn every_key_of_the_file_is_told() {
        let told = Config::default().told();
        for (table, keys) in crate::config::file::KEYS {
            for key in *keys {
                let name =
                    if table.is_empty() { (*key).to_owned() } else { format!("{table}.{key}") };
                let is_table = table.is_empty() && !["gateway", "interfaces"].contains(key);
                // Where peers have no series, none has one.
                assert!(is_table || name == "metrics.peers" || told.contains_key(&name), "{name}");
            }
        }
    }
}
