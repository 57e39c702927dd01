//! The text of `flowd.toml`: refused in lines that a terminal may show, or within every limit.

#![no_main]

use std::{ops::RangeInclusive, time::Duration};

use flowd::{config::Config, store::MaxBytes};
use flowd_common::limits::{MAX_FLOWS, MIN_FLOWS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    match Config::parse(text) {
        Ok(config) => {
            within_limits(&config);
            assert_eq!(Config::parse(text), Ok(config), "read again it is another");
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused for no reason");
            for problem in problems {
                let told = problem.to_string();
                assert!(!told.is_empty() && !told.contains(char::is_control), "{told:?}");
            }
        }
    }
});

fn within_limits(config: &Config) {
    let Config {
        gateway,
        interfaces,
        store,
        synchronous: _,
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
        order: _,
        limits,
        metrics,
    } = config;
    assert!(metrics.listen.is_none_or(|at| at.ip().is_loopback()));
    assert!((1..=255).contains(&gateway.len()) && !gateway.contains(char::is_control));
    assert!(interfaces.iter().all(|name| !name.is_empty() && !name.contains(['/', ' ', '\0'])));
    assert!(
        retention.max_bytes != MaxBytes::Percent(0) && retention.max_bytes != MaxBytes::Bytes(0)
    );
    assert!((1..=262_144).contains(tail_records));
    assert!(*audit_retention_days <= 3_650);
    let groups = grants.iter().map(|grant| &grant.group).chain(read_groups).chain(admin_groups);
    assert!(groups.into_iter().all(|group| !group.is_empty()), "{config:?}");
    let granted = grants.iter().flat_map(|grant| grant.peers.iter().chain(&grant.users));
    assert!(granted.into_iter().all(|name| !name.is_empty()), "{config:?}");
    assert!((MIN_FLOWS..=MAX_FLOWS).contains(table_size));
    let times: [(Duration, RangeInclusive<u64>); 6] = [
        (*query_timeout, 1_000..=600_000),
        (*drain_interval, 100..=60_000),
        (*active_timeout, 100..=3_600_000),
        (*idle_timeout, 1_000..=86_400_000),
        (*tcp_idle_timeout, 1_000..=604_800_000),
        (*linger, 100..=600_000),
    ];
    for (time, range_ms) in times {
        assert!(range_ms.contains(&(time.as_millis() as u64)), "{time:?}");
    }
    for entries in [limits.endpoints, limits.pairs, limits.intervals] {
        assert!((1_000..=64_000_000).contains(&entries), "{entries}");
    }
    let paths = [store, keys, socket, policy_file, pins, &names.peers].into_iter();
    for path in paths.chain(&names.wireguard).chain(&names.networkd) {
        assert!(path.is_absolute(), "{path:?}");
    }
    // `sun_path` of unix(7).
    assert!(socket.as_os_str().len() < 108, "{socket:?}");
}
