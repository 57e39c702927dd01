//! `[metrics]`: what `/metrics` tells of peers, and where else it may be read.

use std::net::SocketAddr;

use serde::Deserialize;

use super::{Metrics, Problem, range};

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Table {
    listen: Option<String>,
    peers: Option<bool>,
    max_peers: Option<u64>,
}

impl Table {
    pub(super) fn into_metrics(self, problems: &mut Vec<Problem>) -> Metrics {
        let Self { listen, peers, max_peers } = self;
        let max_peers = max_peers.unwrap_or(range::DEFAULT_METRICS_PEERS);
        if !range::METRICS_PEERS.contains(&max_peers) {
            problems.push(Problem::out_of_range(
                "metrics.max_peers",
                max_peers,
                &range::METRICS_PEERS,
            ));
        }
        let max_peers = usize::try_from(max_peers).unwrap_or(usize::MAX);
        Metrics {
            listen: listen.and_then(|text| listener(&text, problems)),
            max_peers: if peers.unwrap_or(true) { max_peers } else { 0 },
        }
    }
}

fn listener(text: &str, problems: &mut Vec<Problem>) -> Option<SocketAddr> {
    let shown = text.escape_debug();
    match text.parse::<SocketAddr>() {
        Ok(address) if !address.ip().is_loopback() => {
            problems.push(Problem::new(format!(
                "`metrics.listen` is `{shown}`; flowd asks nobody for a password, so it listens on \
                 addresses such as `127.0.0.1:9586` or `[::1]:9586` only: put a proxy that does in \
                 front of it"
            )));
            None
        }
        Ok(address) if address.port() == 0 => {
            problems.push(Problem::new(format!(
                "`metrics.listen` is `{shown}`; write a port, as in `127.0.0.1:9586`"
            )));
            None
        }
        Ok(address) => Some(address),
        Err(_) => {
            problems.push(Problem::new(format!(
                "`metrics.listen` is `{shown}`; write an address and a port, such as \
                 `127.0.0.1:9586`"
            )));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_listener_is_on_this_machine() {
        let cases = [
            ("127.0.0.1:9586", None),
            ("127.9.9.9:1", None),
            ("[::1]:9586", None),
            ("0.0.0.0:9586", Some("asks nobody for a password")),
            ("[::]:9586", Some("asks nobody for a password")),
            ("10.8.0.1:9586", Some("asks nobody for a password")),
            ("127.0.0.1:0", Some("write a port")),
            ("127.0.0.1", Some("write an address and a port")),
            ("localhost:9586", Some("write an address and a port")),
            (":9586", Some("write an address and a port")),
        ];
        for (listen, expected) in cases {
            let config = Config::parse(&format!("[metrics]\nlisten = \"{listen}\"\n"));
            match expected {
                None => {
                    let address = config.unwrap().metrics.listen;
                    assert_eq!(address, Some(listen.parse().unwrap()), "{listen}");
                }
                Some(expected) => {
                    let told = config.unwrap_err()[0].to_string();
                    assert!(told.contains(expected), "{listen}: {told}");
                }
            }
        }
    }

    #[test]
    fn series_of_peers_are_bounded_and_can_be_left_out() {
        let cases = [
            ("", 1_000),
            ("max_peers = 5\n", 5),
            ("max_peers = 0\n", 0),
            ("peers = false\n", 0),
            ("peers = true\nmax_peers = 7\n", 7),
        ];
        for (text, expected) in cases {
            let metrics = Config::parse(&format!("[metrics]\n{text}")).unwrap().metrics;
            assert_eq!((metrics.max_peers, metrics.listen), (expected, None), "{text}");
        }
        assert!(Config::parse("[metrics]\nmax_peers = 10001\n").is_err());
    }
}
