//! Why one end may talk to another, or not: the deciding rule, and everything that could be in the
//! way besides.

use std::net::{IpAddr, Ipv6Addr};

use flowd_common::packet::{has_ports, icmp_request};

use crate::{
    flows::{Identity, protocol_name},
    live::{Question, Unanswerable},
    policy::{Endpoint, Policy, Service, Services},
    wire::{self, Timestamp},
    wireguard,
};

use super::{collector::Collector, interfaces::Interfaces};

/// A protocol with ports is assumed where a port is given alone.
const TCP: u8 = 6;

/// One end, found.
struct End {
    ip: IpAddr,
    found: String,
    /// The interface behind which it lives.
    ifindex: Option<u32>,
}

impl Collector {
    /// Answers without the last flow, which the store knows.
    pub(super) fn why(&self, question: &Question) -> Result<wire::Why, Unanswerable> {
        let world = &self.verdicts.world;
        let src = self.find("src", &question.src, family(&question.dst))?;
        let dst = self.find("dst", &question.dst, Some(src.ip.is_ipv4()))?;
        if src.ip.is_ipv4() != dst.ip.is_ipv4() {
            return Err(Unanswerable::Senseless(format!(
                "{} and {} are of different families: no packet goes from one to the other",
                src.ip, dst.ip
            )));
        }
        let (from, to) = match (src.ifindex, dst.ifindex) {
            (Some(ifindex), _) => {
                (world.near(ifindex, mapped(src.ip)), world.far(ifindex, mapped(dst.ip)))
            }
            (None, Some(ifindex)) => {
                (world.far(ifindex, mapped(src.ip)), world.near(ifindex, mapped(dst.ip)))
            }
            (None, None) => {
                return Err(Unanswerable::Senseless(format!(
                    "neither {} nor {} is in a peer's allowed-ips: traffic between them goes \
                     through no tunnel",
                    src.ip, dst.ip
                )));
            }
        };
        let (protocol, services) = asked(question)?;
        let policy = &self.verdicts.revision.policy;
        Ok(wire::Why {
            revision: self.verdicts.revision(),
            mode: policy.mode,
            src: self.describe(&src, &from),
            dst: self.describe(&dst, &to),
            protocol: protocol.map(protocol_name),
            port: question.port,
            decisions: decisions(policy, &from, &to, &services),
            last_flow: None,
        })
    }

    /// An address as it is; a peer by its first address of the wanted family.
    fn find(&self, which: &str, text: &str, want_v4: Option<bool>) -> Result<End, Unanswerable> {
        let world = &self.verdicts.world;
        if let Ok(ip) = text.parse::<IpAddr>() {
            let ip = ip.to_canonical();
            let here = world.routes.iter().find_map(|(ifindex, routes)| {
                routes.resident(mapped(ip)).map(|peer| (*ifindex, peer))
            });
            let found = match here.and_then(|(_, peer)| world.identities.get(&peer)) {
                Some(peer) => format!("in the allowed-ips of {}", peer.name),
                None if world.gateway.contains(&ip) => "an address of the gateway".to_owned(),
                None => "in no peer's allowed-ips".to_owned(),
            };
            return Ok(End { ip, found, ifindex: here.map(|(ifindex, _)| ifindex) });
        }
        let mut matching: Vec<(u32, &wireguard::Peer, bool)> = Vec::new();
        for (ifindex, watched) in self.interfaces.iter().filter(|(_, w)| w.attachment.is_some()) {
            for peer in &watched.now.peers {
                let identity =
                    self.peers.id(ifindex, &peer.public_key).and_then(|id| self.peers.identity(id));
                if let Some(identity) = identity.filter(|identity| identity.is(text)) {
                    matching.push((ifindex, peer, identity.name == text));
                }
            }
        }
        let shown = text.escape_debug();
        let (ifindex, peer, by_name) = match matching.as_slice() {
            [only] => *only,
            [] => {
                return Err(Unanswerable::Unknown(format!(
                    "`{which}` is `{shown}`, which is no address and no peer: see `flowctl peers`"
                )));
            }
            several => {
                return Err(Unanswerable::Ambiguous(format!(
                    "`{which}` is `{shown}`, which {} peers go by: give an address or a whole \
                     public key",
                    several.len()
                )));
            }
        };
        let nets = peer.allowed_ips.iter().filter(|net| net.prefix_len() > 0);
        let ip = nets
            .filter(|net| want_v4.is_none_or(|v4| v4 == net.addr().is_ipv4()))
            .min_by_key(|net| (net.addr().is_ipv6(), net.max_prefix_len() - net.prefix_len()))
            .and_then(|net| net.hosts().next());
        let Some(ip) = ip else {
            return Err(Unanswerable::Senseless(format!(
                "`{which}` is `{shown}`, a peer without an address of that family: give an address"
            )));
        };
        let how = if by_name { "by its name" } else { "by its public key" };
        Ok(End { ip, found: how.to_owned(), ifindex: Some(ifindex) })
    }

    fn describe(&self, end: &End, endpoint: &Endpoint<'_>) -> wire::WhyEnd {
        let known = endpoint.peer.and_then(|peer| peer_now(&self.interfaces, peer));
        let route = wireguard::route(end.ip).unwrap_or_default();
        let interface = known.map(|(name, _)| name.to_owned());
        let route_fits = match (&interface, &route) {
            (Some(interface), Some(route)) => Some(interface == route),
            (Some(_), None) => Some(false),
            (None, route) => Some(route.is_some()),
        };
        let identity = endpoint.peer.map(|peer| Identity {
            endpoint: known.and_then(|(_, peer)| peer.endpoint),
            ..peer.clone()
        });
        wire::WhyEnd {
            ip: end.ip,
            peer: identity,
            found: end.found.clone(),
            is_gateway: endpoint.is_gateway,
            resource: self.verdicts.resource(mapped(end.ip)).map(|name| name.to_string()),
            interface,
            latest_handshake: known.and_then(|(_, peer)| peer.latest_handshake_ms).map(Timestamp),
            route,
            route_fits,
        }
    }
}

fn peer_now<'a>(
    interfaces: &'a Interfaces,
    identity: &Identity,
) -> Option<(&'a str, &'a wireguard::Peer)> {
    interfaces.iter().filter(|(_, watched)| watched.attachment.is_some()).find_map(
        |(_, watched)| {
            let peer =
                watched.now.peers.iter().find(|peer| peer.public_key == identity.public_key)?;
            Some((&*watched.name, peer))
        },
    )
}

fn mapped(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// The family of an address, `None` for a peer.
fn family(text: &str) -> Option<bool> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical().is_ipv4())
}

/// The protocol and the services that a question is about.
fn asked(question: &Question) -> Result<(Option<u8>, Services), Unanswerable> {
    let service = |protocol, port| {
        let service = Service::new(protocol, port).0;
        Services::of(vec![service..=service])
    };
    match (question.protocol, question.port) {
        (None, None) => Ok((None, Services::any())),
        (None, Some(port)) => Ok((Some(TCP), service(TCP, port))),
        (Some(protocol), Some(port)) if has_services(protocol) => {
            Ok((Some(protocol), service(protocol, port)))
        }
        (Some(protocol), Some(_)) => Err(Unanswerable::Senseless(format!(
            "{} has no ports: leave `port` out",
            protocol_name(protocol)
        ))),
        (Some(protocol), None) if has_services(protocol) => {
            Ok((Some(protocol), Services::of(vec![Services::protocol(protocol)])))
        }
        (Some(protocol), None) => Ok((Some(protocol), service(protocol, 0))),
    }
}

/// Whether a policy tells flows of the protocol apart by a port or an ICMP type.
fn has_services(protocol: u8) -> bool {
    has_ports(protocol) || icmp_request(protocol, 0).is_some()
}

/// Each rule that decides about some of the services, in order, and the default for what is left.
fn decisions(
    policy: &Policy,
    from: &Endpoint<'_>,
    to: &Endpoint<'_>,
    asked: &Services,
) -> Vec<wire::Decision> {
    let mut left = asked.clone();
    let mut decisions = Vec::new();
    for rule in &policy.rules {
        let decided = left.intersection(&rule.services);
        let speaks = !decided.ranges().is_empty()
            && policy.selects(&rule.from, from)
            && policy.selects(&rule.to, to);
        if !speaks {
            continue;
        }
        let is_last = rule.services.contain_all(&left);
        decisions.push(wire::Decision {
            rule: Some(rule.id.to_string()),
            line: Some(rule.line),
            verdict: rule.action,
            services: (!is_last).then(|| decided.to_string()),
        });
        if is_last {
            return decisions;
        }
        left = left.without(&rule.services);
    }
    decisions.push(wire::Decision {
        rule: None,
        line: None,
        verdict: policy.default,
        services: None,
    });
    decisions
}
