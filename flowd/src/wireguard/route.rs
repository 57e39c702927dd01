//! Where the gateway sends packets: the kernel's routing decision, as `ip route get` asks for it.

use std::{ffi::CStr, io, net::IpAddr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkPayload};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    route::{RouteAttribute, RouteMessage},
};
use netlink_request::netlink_request_rtnl;

/// The interface that packets for `ip` leave by; `lo` for the gateway itself. `None`: there is no
/// route.
pub fn route(ip: IpAddr) -> io::Result<Option<String>> {
    let mut question = RouteMessage::default();
    let (family, bits) = match ip {
        IpAddr::V4(_) => (AddressFamily::Inet, 32),
        IpAddr::V6(_) => (AddressFamily::Inet6, 128),
    };
    question.header.address_family = family;
    question.header.destination_prefix_length = bits;
    question.attributes.push(RouteAttribute::Destination(ip.into()));
    let question = RouteNetlinkMessage::GetRoute(question);
    let answers = match netlink_request_rtnl(question, Some(NLM_F_REQUEST | NLM_F_ACK)) {
        Ok(answers) => answers,
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let index = answers.iter().find_map(|answer| match &answer.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
            route.attributes.iter().find_map(|attribute| match attribute {
                RouteAttribute::Oif(index) => Some(*index),
                _ => None,
            })
        }
        _ => None,
    });
    Ok(index.and_then(name_of))
}

/// The name of the link with this number.
fn name_of(index: u32) -> Option<String> {
    let mut name = [0; libc::IFNAMSIZ];
    // SAFETY: the buffer has the size that the function asks for.
    let found = unsafe { libc::if_indextoname(index, name.as_mut_ptr()) };
    if found.is_null() {
        return None;
    }
    // SAFETY: the function has written a terminated name into the buffer.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) };
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_loopback_address_is_on_the_loopback_device() {
        assert_eq!(super::route("127.0.0.1".parse().unwrap()).unwrap().as_deref(), Some("lo"));
    }
}
