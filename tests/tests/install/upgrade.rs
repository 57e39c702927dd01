//! Another version of the package, under traffic and an enforced policy.

use flowd::wire::Policy;

use crate::gateway::Gateway;
use crate::installation::{PACKAGE, UPGRADE, installed, version_of};
use crate::operator::{self, gaps, json, ready};
use crate::watched::Watched;

pub(crate) fn loses_no_packet_and_lets_none_through(gateway: &mut Gateway) {
    let known_gaps = gaps();
    let (watched, before) = Watched::begin(gateway);
    let pid = ready();
    operator::install(UPGRADE);
    let upgraded = ("install ok installed".to_owned(), version_of(UPGRADE));
    assert_eq!(installed(), upgraded);
    assert_ne!(version_of(PACKAGE), version_of(UPGRADE));
    assert_ne!(ready(), pid, "the new program runs");
    watched.end_whole(&before);
    assert_eq!(gaps(), known_gaps, "nothing is missing");
    let policy: Policy = json(&["policy", "show"]);
    assert_eq!(policy.revision, before[0].policy_revision);
}
