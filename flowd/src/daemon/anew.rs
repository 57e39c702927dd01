//! A store whose newest segment was set aside begins another one with what the daemon knows to be
//! recorded, so that nothing is recorded twice.

use std::collections::HashSet;

use super::{
    collector::Collector,
    ledger::{View, entry, restated, tuple},
};
use crate::dataplane::DataplaneError;

impl Collector {
    /// Gives the store the whole ledger.
    pub(super) fn begin_anew(&mut self) -> Result<(), DataplaneError> {
        let line = self.time_line()?;
        let Self { dataplane, recorder, ledger, overflow, peers, interfaces, verdicts, .. } = self;
        let view = View { line, peers, interfaces, verdicts };
        let mut recorded = overflow.recorded_so_far(&view);
        let mut ended = HashSet::new();
        dataplane.for_each_flow(|key, value| match ledger.get(key) {
            Some(open) if open.is_closed => drop(ended.insert((tuple(key), entry(key, value)))),
            Some(open) => {
                recorded.extend(restated(view.record(key, value, open, None), open.recorded));
            }
            None => {}
        })?;
        // Told by the recorder, and tried again at the next drain.
        let _tried_again = recorder.begin_anew(line.wall_ms(), recorded, ended);
        Ok(())
    }
}
