//! The filters of every command that looks at flows, as flags and as parameters of a query.

use clap::Args;

use super::{complete, error::CtlError, text::Clock};

/// Parameters of a query.
pub(super) type Parameters = Vec<(&'static str, String)>;

/// What to look at. Every filter narrows.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Filters")]
pub(super) struct Filters {
    #[command(flatten)]
    pub(super) range: Range,
    /// Name, public key, or the start of the key, at either end.
    #[arg(long, add = complete::peers())]
    pub(super) peer: Option<String>,
    /// User of the peer at either end.
    #[arg(long, add = complete::users())]
    pub(super) user: Option<String>,
    /// Address or prefix of the initiator.
    #[arg(long, value_name = "NET")]
    pub(super) src: Option<String>,
    /// Address or prefix of the other end.
    #[arg(long, value_name = "NET")]
    pub(super) dst: Option<String>,
    /// Address or prefix of either end.
    #[arg(long, value_name = "NET")]
    pub(super) ip: Option<String>,
    /// Port of either end.
    #[arg(long)]
    pub(super) port: Option<String>,
    /// Port of the initiator.
    #[arg(long, value_name = "PORT", alias = "src_port")]
    pub(super) src_port: Option<String>,
    /// Port of the other end.
    #[arg(long, value_name = "PORT", alias = "dst_port")]
    pub(super) dst_port: Option<String>,
    /// By name or number.
    #[arg(long, add = complete::words(["tcp", "udp", "icmp", "icmpv6", "sctp"]))]
    pub(super) protocol: Option<String>,
    /// allow or deny.
    #[arg(long, add = complete::words(["allow", "deny"]))]
    pub(super) verdict: Option<String>,
    /// The rule that decided, by its id; none: what no rule decided.
    #[arg(long, value_name = "ID", add = complete::rules())]
    pub(super) rule: Option<String>,
    /// Who opened the flow: peer, remote or unknown.
    #[arg(long, value_name = "WHO", add = complete::words(["peer", "remote", "unknown"]))]
    pub(super) initiator: Option<String>,
    /// Of one interface.
    #[arg(long, value_name = "NAME", add = complete::interfaces())]
    pub(super) interface: Option<String>,
    /// Flows once they have moved so much, both ways, such as 10MB.
    #[arg(long, value_name = "SIZE", alias = "min_bytes")]
    pub(super) min_bytes: Option<String>,
    /// open or closed.
    #[arg(long, add = complete::words(["open", "closed"]))]
    pub(super) state: Option<String>,
}

impl Filters {
    /// As query parameters.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self {
            range,
            peer,
            user,
            src,
            dst,
            ip,
            port,
            src_port,
            dst_port,
            protocol,
            verdict,
            rule,
            initiator,
            interface,
            min_bytes,
            state,
        } = self;
        let others = [
            ("peer", peer),
            ("user", user),
            ("src", src),
            ("dst", dst),
            ("ip", ip),
            ("port", port),
            ("src_port", src_port),
            ("dst_port", dst_port),
            ("protocol", protocol),
            ("verdict", verdict),
            ("rule", rule),
            ("initiator", initiator),
            ("interface", interface),
            ("min_bytes", min_bytes),
            ("state", state),
        ];
        let mut pairs = range.pairs(clock)?;
        pairs.extend(others.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        Ok(pairs)
    }
}

/// A time range.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct Range {
    /// From when on: 2026-11-21T08:00:00Z, "2026-11-20 08:00", 08:00, today, yesterday, 15m, -2h, 7d.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
    /// Until when.
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) until: Option<String>,
}

impl Range {
    /// As query parameters. What says no zone is meant where times are shown.
    pub(super) fn pairs(&self, clock: &Clock) -> Result<Parameters, CtlError> {
        let Self { since, until } = self;
        let mut pairs = Vec::new();
        for (name, flag, text) in [("since", "--since", since), ("until", "--until", until)] {
            if let Some(text) = text {
                pairs.push((name, clock.read(flag, text)?.to_string()));
            }
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::{Clock, Filters, Range};
    use crate::wire::Timestamp;

    #[test]
    fn times_are_sent_as_instants_and_nonsense_is_not_sent() {
        let clock = Clock::fixed(Timestamp(1_795_233_600_000)); // 2026-11-21T04:00:00Z
        let pairs = |since: &str, until: &str| {
            let [since, until] =
                [since, until].map(|text| (!text.is_empty()).then(|| text.to_owned()));
            Filters { range: Range { since, until }, ..Filters::default() }.pairs(&clock)
        };
        let sent = pairs("yesterday", "2026-11-20 08:00").unwrap();
        assert_eq!(
            sent,
            [
                ("since", "2026-11-20T00:00:00.000Z".to_owned()),
                ("until", "2026-11-20T08:00:00.000Z".to_owned())
            ]
        );
        assert_eq!(pairs("-2h", "").unwrap(), [("since", "2026-11-21T02:00:00.000Z".to_owned())]);
        assert_eq!(pairs("", "").unwrap(), []);
        for (since, until, flag) in [("soon", "", "`--since` is `soon`"), ("", "", "")] {
            let told = pairs(since, until).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(told.starts_with(flag), "{told}");
            assert!(told.lines().count() <= 1);
        }
    }
}
