//! Filters of a link's `clsact` qdisc.

use std::io;

use flowd_common::counter::Direction;
use netlink_packet_core::{NLM_F_DUMP, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::{RouteNetlinkMessage, tc::TcMessage};
use netlink_request::netlink_request_rtnl;

/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS)` of `include/uapi/linux/pkt_sched.h`.
const INGRESS: u32 = 0xffff_fff2;
/// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_EGRESS)` there.
const EGRESS: u32 = 0xffff_fff3;

/// Whether a link has a filter in this place. One without the qdisc has none.
pub fn has_filter(
    ifindex: u32,
    direction: Direction,
    priority: u16,
    handle: u32,
) -> io::Result<bool> {
    let mut question = TcMessage::default();
    question.header.index = ifindex.cast_signed();
    question.header.parent = match direction {
        Direction::Ingress => INGRESS,
        Direction::Egress => EGRESS,
    }
    .into();
    let question = RouteNetlinkMessage::GetTrafficFilter(question);
    let answers = match netlink_request_rtnl(question, Some(NLM_F_REQUEST | NLM_F_DUMP)) {
        Ok(answers) => answers,
        Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    Ok(answers.iter().any(|answer| match &answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewTrafficFilter(filter)) => {
            filter.header.info >> 16 == u32::from(priority)
                && u32::from(filter.header.handle) == handle
        }
        _ => false,
    }))
}

#[cfg(test)]
mod tests {
    use super::{Direction, has_filter};

    #[test]
    fn the_loopback_device_has_no_filter_of_ours() {
        let lo = crate::wireguard::ifindex_of("lo").unwrap();
        for direction in [Direction::Ingress, Direction::Egress] {
            assert!(!has_filter(lo, direction, 0xf10d, 1).unwrap());
        }
    }
}
