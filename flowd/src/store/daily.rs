//! What each peer did on each day: of days that have a segment, from it; of others, from what is kept
//! for ever.

use super::{ReadError, Reader, segment::as_it_is, totals, totals::Day, writer};
use crate::flows::DayTotal;

impl Reader {
    /// Every day from `first` to `last` (YYYY-MM-DD), oldest first.
    pub fn day_totals(
        &self,
        first: Option<&str>,
        last: Option<&str>,
    ) -> Result<Vec<DayTotal>, ReadError> {
        let segments = self.directory();
        let days = match writer::list(segments) {
            Ok(days) => days,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(source) => return Err(ReadError::List { path: segments.to_owned(), source }),
        };
        let is_wanted = |day: &str| {
            first.is_none_or(|first| first <= day) && last.is_none_or(|last| day <= last)
        };
        let store = segments.parent().unwrap_or(segments);
        let mut totals = totals::peer_days(store).map_err(ReadError::Totals)?;
        totals.retain(|total| is_wanted(&total.day) && !days.contains(&total.day));
        for day in days.iter().filter(|day| is_wanted(day)) {
            let path = segments.join(format!("{day}.sqlite"));
            let read = as_it_is(&path, |conn, version| {
                let is_empty = version == 0;
                (!is_empty).then(|| Day::of(conn, day, version)).transpose()
            });
            match read {
                Ok(Some((_, peers))) => totals.extend(peers),
                // It is only just being made.
                Ok(None) => {}
                // Retention has removed it meanwhile: it is kept elsewhere now.
                Err(_) if !path.exists() => return self.day_totals(first, last),
                Err(source) => return Err(ReadError::Segment { path, source }),
            }
        }
        totals.sort_by(|a, b| a.day.cmp(&b.day));
        Ok(totals)
    }
}
