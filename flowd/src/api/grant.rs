//! What a caller may ask who is granted one peer or user at a time.
//!
//! - what is not on the list here is refused: streams, SQL, peers, policy, how the daemon is
//! - a question names exactly one peer or one user, of those that are granted
//! - without addresses there are sums only, and nothing narrows or groups by who is at the other end
//!
//! Whatever is asked otherwise has the same answer, which says nothing of what there is.

use axum::http::{Method, Uri};

use super::params::Params;
use crate::config::Grant;

/// What is answered by sums.
const SUMS: [&str; 3] = ["/v1/summary", "/v1/top", "/v1/series"];
/// What has addresses.
const FLOWS: &str = "/v1/flows";
/// Parameters that narrow by an address.
const OF_ADDRESSES: [&str; 3] = ["src", "dst", "ip"];
/// Groups that tell neither an address nor whose it is.
const GROUPS: [&str; 4] = ["dst_port", "protocol", "rule", "verdict"];

/// Why a request may not be; `None`: it may.
pub(super) fn refusal(grant: &Grant, method: &Method, uri: &Uri) -> Option<&'static str> {
    let is_of_sums = SUMS.contains(&uri.path());
    if method != Method::GET || !(is_of_sums || (grant.addresses && uri.path() == FLOWS)) {
        return Some(if grant.addresses {
            "you may ask for the sums and flows of one peer or user only: /v1/summary, /v1/top, \
             /v1/series and /v1/flows"
        } else {
            "you may ask for the sums of one peer or user only: /v1/summary, /v1/top and /v1/series"
        });
    }
    // What cannot be read is refused here too: nothing else would look whom it names.
    let named = Params::in_uri(uri).ok().filter(|params| names_one(grant, params));
    let Some(params) = named else {
        return Some(
            "you may ask about one peer or user at a time, who is granted to you: name one",
        );
    };
    if grant.addresses || hides_addresses(uri.path(), &params) {
        return None;
    }
    Some(
        "you may not ask by address: leave `src`, `dst` and `ip` out, and let `by` be dst_port, \
         protocol, rule or verdict",
    )
}

fn names_one(grant: &Grant, params: &Params) -> bool {
    let is_one_of = |granted: &[String], name: &str| granted.iter().any(|granted| granted == name);
    match (params.get("peer"), params.get("user")) {
        (Some(""), None) | (None, Some("")) => false,
        (Some(peer), None) => grant.is_of_everybody() || is_one_of(&grant.peers, peer),
        (None, Some(user)) => grant.is_of_everybody() || is_one_of(&grant.users, user),
        // Both would ask who talks with whom.
        (Some(_), Some(_)) | (None, None) => false,
    }
}

fn hides_addresses(path: &str, params: &Params) -> bool {
    let groups = match params.get("by") {
        Some(by) => by.split(',').all(|word| GROUPS.contains(&word)),
        // Which is by peer then.
        None => path != "/v1/top",
    };
    groups && OF_ADDRESSES.iter().all(|name| params.get(name).is_none())
}

#[cfg(test)]
mod tests {
    use axum::http::{Method, Uri};

    use super::refusal;
    use crate::{api::openapi, config::Grant};

    fn grant(peers: &[&str], users: &[&str], addresses: bool) -> Grant {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Grant { group: "7".to_owned(), peers: list(peers), users: list(users), addresses }
    }

    fn may(grant: &Grant, target: &str) -> bool {
        refusal(grant, &Method::GET, &target.parse::<Uri>().unwrap()).is_none()
    }

    #[test]
    fn one_who_is_granted_is_named_and_nobody_else() {
        let some = grant(&["alice-laptop"], &["alice@example.com"], false);
        let everybody = grant(&[], &[], false);
        let cases = [
            // what is asked, whether some may be asked so, whether everybody may
            ("peer=alice-laptop", true, true),
            ("user=alice@example.com", true, true),
            ("user=alice%40example.com&since=1h", true, true),
            ("peer=bob-laptop", false, true),
            ("peer=alice@example.com", false, true),
            ("user=alice-laptop", false, true),
            ("peer=alice", false, true),
            ("", false, false),
            ("since=1h", false, false),
            ("peer=", false, false),
            ("peer=alice-laptop&user=", false, false),
            ("peer=alice-laptop&user=alice@example.com", false, false),
            ("peer=alice-laptop&user=bob@example.com", false, false),
            ("peer=alice-laptop&peer=bob-laptop", false, false),
            ("peer=bob-laptop&peer=alice-laptop", false, false),
            ("peer=alice-laptop&%70eer=bob-laptop", false, false),
            ("Peer=alice-laptop", false, false),
            ("peer=alice-laptop%00", false, true),
            ("peer=%ff", false, true),
        ];
        for (query, of_some, of_everybody) in cases {
            let target = format!("/v1/summary?{query}");
            assert_eq!(may(&some, &target), of_some, "{query}");
            assert_eq!(may(&everybody, &target), of_everybody, "{query}");
        }
    }

    #[test]
    fn without_addresses_nothing_tells_one() {
        let (without, with) = (grant(&[], &[], false), grant(&[], &[], true));
        let cases = [
            // what is asked, whether it may be asked without addresses, and with
            ("/v1/top?user=a&by=protocol", true, true),
            ("/v1/top?user=a&by=dst_port,verdict", true, true),
            ("/v1/series?user=a", true, true),
            ("/v1/series?user=a&by=rule", true, true),
            ("/v1/top?user=a", false, true),
            ("/v1/top?user=a&by=", false, true),
            ("/v1/top?user=a&by=dst", false, true),
            ("/v1/top?user=a&by=protocol,dst", false, true),
            ("/v1/top?user=a&by=protocol%2Csrc", false, true),
            ("/v1/top?user=a&by=peer", false, true),
            ("/v1/series?user=a&by=user", false, true),
            ("/v1/summary?user=a&dst=10.0.0.1", false, true),
            ("/v1/summary?user=a&src=10.0.0.1", false, true),
            ("/v1/series?user=a&ip=10.0.0.0/8", false, true),
            ("/v1/flows?user=a", false, true),
            ("/v1/flows?user=a&sort=bytes&cursor=x", false, true),
            ("/v1/flows", false, false),
            ("/v1/flows?cursor=x", false, false),
        ];
        for (target, of_without, of_with) in cases {
            assert_eq!(may(&without, target), of_without, "{target}");
            assert_eq!(may(&with, target), of_with, "{target}");
        }
    }

    /// Those that are new are refused until somebody says otherwise.
    #[test]
    fn every_other_endpoint_is_refused() {
        let grant = grant(&[], &[], true);
        let mut allowed = Vec::new();
        for &path in openapi::paths() {
            if may(&grant, &format!("{path}?user=a")) {
                allowed.push(path);
            }
        }
        allowed.sort_unstable();
        assert_eq!(allowed, ["/v1/flows", "/v1/series", "/v1/summary", "/v1/top"]);
        for odd in ["/v1/flows/", "/v1/flows/x", "//v1/flows", "/v1/summary/..", "/v1/%66lows"] {
            assert!(!may(&grant, &format!("{odd}?user=a")), "{odd}");
        }
        for method in [Method::POST, Method::HEAD, Method::PUT, Method::OPTIONS] {
            let uri = "/v1/summary?user=a".parse().unwrap();
            assert!(refusal(&grant, &method, &uri).is_some(), "{method}");
        }
    }
}
