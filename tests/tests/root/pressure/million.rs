//! A million live flows.

use flowd_tests::{machine, site::Settings, wait};

use super::{MIB, assert_memory, assert_sums, fill, gateway, timed};
use crate::books::flowd_on;

#[test]
fn a_million_live_flows_are_counted_and_told() {
    let flows = machine::size(1_000_000, 50_000);
    let net = gateway(1);
    let settings = Settings {
        table_size: 1 << 20,
        drain_interval_ms: 5_000,
        active_timeout_ms: std::env::var("ACTIVE").ok().and_then(|a| a.parse().ok()).unwrap_or(600_000),
        idle_timeout_ms: 600_000,
        ..Settings::default()
    };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let idle = daemon.usage();

    timed("every flow's first packet", || fill(&net, &net.peers[0], 0..flows));
    let missing = u64::from(flows) - ctl.status().flow_table.entries;
    println!("{missing} were lost on their way");
    for _ in 0..10 {
        let before = daemon.usage().cpu;
        let (status, took) = timed("status", || ctl.status());
        println!(
            "status entries {} drain {} {} us records {} usage {:?} err {:?} cpu {:?}",
            status.flow_table.entries, status.drain.count, status.drain.last_duration_us, status.drain.records, daemon.usage(), status.store.error, daemon.usage().cpu - before
        );
        if took.as_secs() > 20 { break; }
        std::thread::sleep(std::time::Duration::from_millis(500));
    }
    let status = assert_sums(&net, &ctl);
    println!("{:?} {:?}", status.seen, status.device);
    let (s, _) = timed("summary", || ctl.summary());
    println!("summary {s:?}");
    timed("flows", || ctl.run(&["flows"]));
    timed("peers", || ctl.run(&["peers"]));
    println!("usage {:?}", daemon.usage());
    timed("stop", || daemon.stop());
    let _ = (wait::SOON, MIB, assert_memory, idle);
}
