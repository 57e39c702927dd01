//! `flowctl sql` over what a tunnel carried.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use flowd::wire::{SqlRows, SqlTables};
use flowd_tests::{
    flowctl::Flowctl,
    site::Settings,
    topology::Topology,
    traffic::{Load, udp},
    wait,
};
use serde_json::{Value, json};

use crate::books::flowd_on;

fn rows(ctl: &Flowctl<'_>, text: &str) -> Vec<Vec<Value>> {
    ctl.json::<SqlRows>(&["sql", text]).rows
}

/// With the statement on standard input.
fn piped(ctl: &Flowctl<'_>, args: &[&str], text: &str) -> Output {
    let mut command = ctl.command(&[args, &["sql", "-"]].concat());
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("flowctl is built");
    child.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

#[test]
fn sums_in_sql_are_what_was_sent() {
    let net = Topology::new(2);
    let settings = Settings { idle_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let mut expected = Vec::new();
    for (peer, sizes) in net.peers.iter().zip([&[100, 1000][..], &[300]]) {
        let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
        let load = udp::Pair::new(ends.0, ends.1).exchange(sizes);
        let sum = Load::both(load, load);
        expected.push(vec![
            json!(peer.name),
            json!(peer.v4.to_string()),
            json!(sum.rx_packets),
            json!(sum.rx_bytes),
            json!(sum.tx_packets),
            json!(sum.tx_bytes),
            json!(peer.name),
        ]);
    }
    let text = "SELECT peer_name, src_ip, sum(r.rx_packets), sum(r.rx_bytes), sum(r.tx_packets), \
        sum(r.tx_bytes), name FROM records r JOIN peers ON public_key = peer_public_key \
        WHERE protocol = 'udp' AND end_reason = 'idle' GROUP BY peer_name ORDER BY src_ip";
    expected.sort_by_key(|row| row[1].to_string());
    wait::until_equal("both flows end", &expected, || rows(&ctl, text));

    let one = format!(
        "SELECT count(*) AS n FROM records WHERE peer_name = '{}' \
        AND window_end >= instant('1h') AND protocol = 'udp'",
        net.peers[0].name
    );
    assert_eq!(rows(&ctl, &one), [[json!(1)]]);
    let output = piped(&ctl, &["-o", "csv"], &one);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "n\n1\n");
    let output = piped(&ctl, &[], "SELECT 'a' || char(27) AS x, NULL AS y");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "x      y\na\\x1b  -\n");

    let tables: SqlTables = ctl.json(&["sql"]);
    let names: Vec<_> = tables.tables.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["records", "gaps", "peers"]);
    let refused = ctl.failure(&["sql", "DELETE FROM peers"], 1);
    assert!(refused.contains("a statement only reads"), "{refused}");
    let refused = ctl.failure(&["sql", "SELECT peer FROM records"], 1);
    assert!(refused.contains("no such column: peer"), "{refused}");
    daemon.stop();
}
