//! `/metrics`: what it counts, on the socket and on the listener for scrapers.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use flowd::flows::Counters;
use flowd_tests::{
    daemon::Daemon,
    http,
    site::{Settings, Site},
    topology::Topology,
    traffic::{Load, udp},
    wait,
};

use crate::books::flowd_on;

/// Where scrapers ask in these tests; each gateway has a namespace of its own.
const ADDRESS: &str = "127.0.0.1:9586";

/// Samples by name and labels, as they stand in the text.
pub(crate) type Samples = BTreeMap<String, f64>;

/// What a listener for scrapers is configured with.
pub(crate) fn with_listener(site: &Site, more: &str) {
    let text = site.config(&Settings::default());
    site.configure(&format!("{text}[metrics]\nlisten = \"{ADDRESS}\"\n{more}"));
}

/// The whole answer on the gateway's own loopback.
pub(crate) fn scrape(net: &Topology, path: &str) -> io::Result<String> {
    let mut stream = net.gateway.run(|| TcpStream::connect(ADDRESS))?;
    stream.set_read_timeout(Some(wait::SOON))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: flowd\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What `/metrics` on the socket says.
pub(crate) fn text(site: &Site) -> String {
    let answer = http::get(&site.socket(), "/metrics");
    assert_eq!(answer.status, 200);
    String::from_utf8(answer.body).expect("it is text")
}

pub(crate) fn samples(text: &str) -> Samples {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a name and a value");
            (series.to_owned(), value.parse().expect("a number"))
        })
        .collect()
}

/// The sum of a metric over the series with all of these labels.
fn sum(samples: &Samples, name: &str, labels: &[(&str, &str)]) -> u64 {
    let wanted: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{value}\"")).collect();
    let of_name = samples.iter().filter(|(series, _)| series.starts_with(&format!("{name}{{")));
    let found = of_name.filter(|(series, _)| wanted.iter().all(|label| series.contains(label)));
    found.map(|(_, value)| *value as u64).sum()
}

/// What the series of peers say.
fn of_peer(samples: &Samples, labels: &[(&str, &str)]) -> Counters {
    let of = |name, direction| sum(samples, name, &[labels, &[("direction", direction)]].concat());
    Counters {
        rx_packets: of("flowd_peer_packets_total", "rx"),
        rx_bytes: of("flowd_peer_bytes_total", "rx"),
        tx_packets: of("flowd_peer_packets_total", "tx"),
        tx_bytes: of("flowd_peer_bytes_total", "tx"),
    }
}

fn pair(net: &Topology, peer: usize) -> udp::Pair {
    let peer = &net.peers[peer];
    udp::Pair::new((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)))
}

/// Counters of what is recorded and of what is not yet are one sum, which never becomes less.
#[test]
fn series_of_peers_are_what_crossed_the_tunnel() {
    let net = Topology::new(2);
    let settings =
        Settings { active_timeout_ms: 300, idle_timeout_ms: 1_000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let ctl = site.flowctl(&net.gateway);
    let before = samples(&text(&site));
    for verdict in ["allow", "deny"] {
        for direction in ["rx", "tx"] {
            let labels = [("peer", "peer0"), ("direction", direction), ("verdict", verdict)];
            let series = before.keys().filter(|series| {
                series.starts_with("flowd_peer_bytes_total{")
                    && labels.iter().all(|(k, v)| series.contains(&format!("{k}=\"{v}\"")))
            });
            assert_eq!(series.count(), 1, "a peer has its series before it does anything");
        }
    }
    let load = pair(&net, 0).exchange(&[100; 5]);
    let expected = Load::both(load, load);
    let peer0 = |samples: &Samples| of_peer(samples, &[("peer", "peer0"), ("verdict", "allow")]);
    assert_eq!(peer0(&samples(&text(&site))), expected, "at once");
    wait::until(wait::SOON, "the flow has ended", || {
        // While it is recorded, and when it is.
        assert_eq!(peer0(&samples(&text(&site))), expected);
        ctl.flows(&[]).iter().all(|flow| flow.end_reason.is_some())
    });
    assert_eq!(peer0(&samples(&text(&site))), expected, "when it has ended");

    ctl.apply("mode = \"observe\"\ndefault = \"deny\"\n");
    let load = pair(&net, 1).exchange(&[50; 3]);
    let now = samples(&text(&site));
    let denied = of_peer(&now, &[("peer", "peer1"), ("verdict", "deny")]);
    assert_eq!(denied, Load::both(load, load));
    assert_eq!(peer0(&now), expected);
    assert_eq!(sum(&now, "flowd_peer_connected", &[("peer", "peer0")]), 1);
    assert_eq!(now["flowd_peers_other"], 0.0);
    let all = of_peer(&now, &[]);
    let seen = |name, direction| sum(&now, name, &[("direction", direction)]);
    assert_eq!(seen("flowd_packets_total", "rx"), all.rx_packets);
    assert_eq!(seen("flowd_bytes_total", "tx"), all.tx_bytes);
    daemon.stop();
}

#[test]
fn peers_beyond_the_bound_are_one_series() {
    let net = Topology::new(3);
    let site = Site::new(&net, &Settings::default());
    for (bound, named) in [("max_peers = 1\n", 1), ("peers = false\n", 0)] {
        with_listener(&site, bound);
        let daemon = site.start(&net.gateway);
        site.flowctl(&net.gateway).attached("wg0");
        let mut expected = Counters::default();
        for peer in 0..3 {
            let load = pair(&net, peer).exchange(&[100]);
            expected += Load::both(load, load);
        }
        let now = samples(&text(&site));
        assert_eq!(now["flowd_peers_other"], f64::from(3 - named), "{bound}");
        let names: std::collections::BTreeSet<_> = now
            .keys()
            .filter_map(|series| series.strip_prefix("flowd_peer_bytes_total{"))
            .filter_map(|labels| labels.split("peer=\"").nth(1)?.split('"').next())
            .collect();
        assert_eq!(names.len(), 2 + named as usize, "other, none and {named}: {names:?}");
        assert!(names.contains("other") && names.contains("none"), "{names:?}");
        assert_eq!(of_peer(&now, &[]), expected, "nobody is left out");
        daemon.stop();
        // The next one begins at zero: its flows are other ones.
        let detached = site.flowd(&net.gateway).arg("detach").output().expect("flowd is built");
        assert!(detached.status.success(), "{}", String::from_utf8_lossy(&detached.stderr));
    }
}

fn listening() -> (Topology, Site, Daemon) {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    with_listener(&site, "");
    let daemon = site.start(&net.gateway);
    site.flowctl(&net.gateway).attached("wg0");
    (net, site, daemon)
}

#[test]
fn scrapers_get_the_metrics_and_nothing_else() {
    let (net, _site, mut daemon) = listening();
    let answer = scrape(&net, "/metrics").expect("it listens");
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("text/plain; version=0.0.4"), "{answer}");
    assert!(answer.contains("\nflowd_build_info{"), "{answer}");
    for (path, status) in [("/v1/status", 404), ("/", 404), ("/metrics?a=b", 400)] {
        let answer = scrape(&net, path).expect("it listens");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
    }
    // Names and policy are read again; the listener is what it was.
    daemon.read_names();
    assert!(scrape(&net, "/metrics").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 OK")));
    daemon.stop();
}

/// Clients that say nothing take all places, and lose them.
#[test]
fn slow_scrapers_do_not_keep_others_away() {
    let (net, _site, daemon) = listening();
    let silent: Vec<TcpStream> = net
        .gateway
        .run(|| (0..40).map(|_| TcpStream::connect(ADDRESS).expect("it listens")).collect());
    let answer = scrape(&net, "/metrics").expect("it comes");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    for mut stream in silent {
        stream.set_read_timeout(Some(Duration::from_secs(120))).expect("it is no zero");
        let mut rest = Vec::new();
        // Closed, with an answer or without: what matters is that it ends.
        let ended = stream.read_to_end(&mut rest);
        assert!(ended.as_ref().is_ok_and(|_| true) || is_reset(&ended), "{ended:?}");
    }
    daemon.stop();
}

fn is_reset(ended: &io::Result<usize>) -> bool {
    ended.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[test]
fn an_address_in_use_is_told_in_one_line() {
    let net = Topology::new(1);
    let site = Site::new(&net, &Settings::default());
    with_listener(&site, "");
    let _other = net.gateway.run(|| TcpListener::bind(ADDRESS).expect("it is free"));
    let line = site.refused(&net.gateway);
    for part in [ADDRESS, "`metrics.listen`", "in use", "set another"] {
        assert!(line.contains(part), "{part}: {line}");
    }
}
