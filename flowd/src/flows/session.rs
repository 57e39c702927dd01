//! When a flow has ended.
//!
//! - TCP, FIN both ways, then quiet for the linger time: `fin`
//! - TCP, a reset, then quiet for the linger time: `rst`
//! - TCP, answered or met in mid-stream and denied, then quiet for its own idle time: `idle`
//! - anything else, quiet for the idle time: `idle`

use std::time::Duration;

use flowd_common::packet::tcp;

use super::{EndReason, TcpFlags};

const TCP: u8 = 6;

/// How long a flow may be quiet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// Established TCP.
    pub tcp_idle: Duration,
    /// Everything else.
    pub idle: Duration,
    /// Closed TCP, so that last acknowledgements and retransmissions still find their flow.
    pub linger: Duration,
}

impl Timeouts {
    /// Why a flow that was quiet for `quiet_ms` milliseconds has ended, if it has.
    pub fn end(
        &self,
        protocol: u8,
        flags: TcpFlags,
        denied: bool,
        quiet_ms: i64,
    ) -> Option<EndReason> {
        let quiet = Duration::from_millis(u64::try_from(quiet_ms).unwrap_or(0));
        let (either, both) = (flags.rx | flags.tx, flags.rx & flags.tx);
        if protocol != TCP {
            return (quiet >= self.idle).then_some(EndReason::Idle);
        }
        if both & tcp::FIN != 0 && quiet >= self.linger {
            return Some(EndReason::Fin);
        }
        if either & tcp::RST != 0 && quiet >= self.linger {
            return Some(EndReason::Rst);
        }
        let answered = flags.rx != 0 && flags.tx != 0;
        // A connection that the policy cut sends again for minutes, two of them between packets.
        let cut = denied && either & tcp::SYN == 0;
        let limit = if answered || cut { self.tcp_idle } else { self.idle.min(self.tcp_idle) };
        (quiet >= limit).then_some(EndReason::Idle)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{EndReason, TCP, TcpFlags, Timeouts, tcp};

    #[test]
    fn flows_end_by_fin_rst_or_idle_time() {
        let timeouts = Timeouts {
            tcp_idle: Duration::from_secs(600),
            idle: Duration::from_secs(60),
            linger: Duration::from_secs(5),
        };
        let (syn, ack, fin, rst) = (tcp::SYN, tcp::ACK, tcp::FIN, tcp::RST);
        let cases = [
            // protocol, rx flags, tx flags, quiet seconds, end
            (TCP, syn | ack, syn | ack, 599, None),
            (TCP, syn | ack, syn | ack, 600, Some(EndReason::Idle)),
            (TCP, syn, 0, 59, None),
            (TCP, syn, 0, 60, Some(EndReason::Idle)),
            (TCP, syn | ack | fin, syn | ack, 599, None),
            (TCP, syn | ack | fin, syn | ack | fin, 4, None),
            (TCP, syn | ack | fin, syn | ack | fin, 5, Some(EndReason::Fin)),
            (TCP, syn | ack | fin, syn | ack | fin | rst, 5, Some(EndReason::Fin)),
            (TCP, syn, rst | ack, 4, None),
            (TCP, syn, rst | ack, 5, Some(EndReason::Rst)),
            (17, 0, 0, 59, None),
            (17, 0, 0, 60, Some(EndReason::Idle)),
            (1, 0, 0, -3, None),
        ];
        for (protocol, rx, tx, quiet, end) in cases {
            let got = timeouts.end(protocol, TcpFlags { rx, tx }, false, quiet * 1000);
            assert_eq!(got, end, "{protocol} {rx:#x} {tx:#x} {quiet}");
        }
        let again = TcpFlags { rx: ack, tx: 0 };
        assert_eq!(timeouts.end(TCP, again, true, 599_000), None);
        assert_eq!(timeouts.end(TCP, again, false, 60_000), Some(EndReason::Idle));
    }
}
