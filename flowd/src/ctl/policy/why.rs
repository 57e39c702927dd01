//! The answer to `flowctl policy why`, as an operator reads it from top to bottom.

use crate::{
    ctl::{error::CtlError, flows::verdict, output::Screen, text},
    flows::{Identity, Verdict},
    policy::Mode,
    wire::{Decision, Why, WhyEnd},
};

/// A handshake older than this means that the session is over: WireGuard's REJECT_AFTER_TIME.
const SESSION_MS: i64 = 180_000;

/// Shows both ends, what decides, and the last flow.
pub(super) fn show(screen: &mut Screen, why: &Why) -> Result<(), CtlError> {
    for (title, end) in [("From", &why.src), ("To", &why.dst)] {
        self::end(screen, title, end)?;
    }
    let service = match (&why.protocol, why.port) {
        (Some(protocol), Some(port)) => format!("{}/{port}", text::visible(protocol)),
        (Some(protocol), None) => text::visible(protocol),
        (None, _) => "any service".to_owned(),
    };
    screen.heading(&format!("Policy {} ({}), {service}", why.revision, why.mode.word()))?;
    for decision in &why.decisions {
        screen.line(&format!("  {}", told(decision, why.mode)))?;
    }
    screen.line("")?;
    screen.heading("Last flow")?;
    let line = match &why.last_flow {
        None => "none that is stored or open".to_owned(),
        Some(flow) => {
            let verdict = verdict(flow.verdict, flow.enforced).text;
            let rule = match &flow.rule {
                Some(rule) => format!("by rule {}", text::visible(rule)),
                None => "by no rule".to_owned(),
            };
            let last = screen.clock.full(flow.last_seen);
            format!("{verdict} {rule}, last packet {last}: flowctl flow {}", flow.flow_id)
        }
    };
    screen.line(&format!("  {line}"))
}

fn told(decision: &Decision, mode: Mode) -> String {
    let services = match &decision.services {
        Some(services) => format!("{services}: "),
        None => String::new(),
    };
    let verdict = match (decision.verdict, mode) {
        (Verdict::Allow, _) => "allowed",
        (Verdict::Deny, Mode::Enforce) => "denied and dropped",
        (Verdict::Deny, Mode::Observe) => "denied, and passes, since the policy only observes",
    };
    match (&decision.rule, decision.line) {
        (Some(rule), Some(line)) => {
            format!("{services}{verdict} by rule {} (line {line})", text::visible(rule))
        }
        (Some(rule), None) => format!("{services}{verdict} by rule {}", text::visible(rule)),
        (None, _) => format!("{services}{verdict} by the default: no rule matches"),
    }
}

fn end(screen: &mut Screen, title: &str, end: &WhyEnd) -> Result<(), CtlError> {
    let mut name = end.ip.to_string();
    if let Some(resource) = &end.resource {
        name = format!("{name} ({})", text::visible(resource));
    }
    screen.heading(&format!("{title} {name}"))?;
    match &end.peer {
        Some(peer) => peer_lines(screen, end, peer)?,
        None => screen.line(&format!("  No peer: {}", text::visible(&end.found)))?,
    }
    let route = match (&end.route, end.route_fits) {
        (None, _) => "none: the gateway does not know where to send packets for it".to_owned(),
        (Some(route), Some(false)) => {
            format!("{}, which is not the peer's interface", text::visible(route))
        }
        (Some(route), _) => text::visible(route),
    };
    screen.line(&format!("  Route      {route}"))?;
    screen.line("")
}

fn peer_lines(screen: &mut Screen, end: &WhyEnd, peer: &Identity) -> Result<(), CtlError> {
    let interface = end.interface.as_deref().unwrap_or("-");
    screen.line(&format!(
        "  Peer       {} on {}, found {}",
        text::visible(&peer.name),
        text::visible(interface),
        text::visible(&end.found)
    ))?;
    if let Some(user) = &peer.user {
        screen.line(&format!("  User       {}", text::visible(user)))?;
    }
    if !peer.groups.is_empty() {
        screen.line(&format!("  Groups     {}", text::visible(&peer.groups.join(", "))))?;
    }
    let handshake = match end.latest_handshake {
        None => "never: the tunnel has not come up".to_owned(),
        Some(time) => {
            let age_ms = (screen.clock.now.0 - time.0).max(0);
            let over = if age_ms > SESSION_MS { ": the session is over" } else { "" };
            format!("{} ago{over}", text::duration(age_ms / 1_000 * 1_000))
        }
    };
    screen.line(&format!("  Handshake  {handshake}"))
}
