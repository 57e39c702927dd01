//! How a list of flows is sorted, and where a page of it ends.
//!
//! A page that is sorted by anything but the start keeps the range of the first one: a range that
//! moves with the clock would change what the flows are sorted by.

use super::{
    error::ApiError,
    params::{self, CURSOR, Params, one_of},
};
use crate::{
    flows::{Filter, FlowSort, Order},
    store::Place,
};

/// Of a list of flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sorting {
    /// What it is sorted by.
    pub sort: FlowSort,
    /// Which end comes first.
    pub order: Order,
}

/// The end of a page: the range it is of, and the last flow.
pub(super) struct End {
    since_ms: Option<i64>,
    until_ms: Option<i64>,
    place: Place,
}

impl Sorting {
    pub(super) fn of(params: &Params) -> Result<Self, ApiError> {
        let words = one_of(&FlowSort::ALL.map(FlowSort::word));
        let sort = params.read("sort", &words, FlowSort::from_word)?;
        let order = params.order()?.unwrap_or_default();
        Ok(Self { sort: sort.unwrap_or(FlowSort::Start), order })
    }

    /// Whether it is the order in which the store has them.
    pub(super) fn is_newest_first(self) -> bool {
        self == Self { sort: FlowSort::Start, order: Order::Descending }
    }

    /// The cursor behind a place.
    pub(super) fn cursor(self, filter: &Filter, place: &Place) -> String {
        let position = params::cursor(&place.position);
        if self.is_newest_first() {
            return position;
        }
        let Self { sort, order } = self;
        let instant = |ms: Option<i64>| ms.map(|ms| ms.to_string()).unwrap_or_default();
        let (since, until) = (instant(filter.since_ms), instant(filter.until_ms));
        let (sort, order, value) = (sort.word(), order.word(), place.value);
        format!("{sort}~{order}~{since}~{until}~{value}~{position}")
    }

    /// The place behind the cursor of this order; puts the range of the first page into the filter.
    pub(super) fn after(
        self,
        params: &Params,
        filter: &mut Filter,
    ) -> Result<Option<Place>, ApiError> {
        let accepted = format!("{CURSOR}, with the same `sort` and `order`");
        let end = params.cursor(&accepted, |text| self.parse(text))?;
        Ok(end.map(|End { since_ms, until_ms, place }| {
            if !self.is_newest_first() {
                (filter.since_ms, filter.until_ms) = (since_ms, until_ms);
            }
            place
        }))
    }

    fn parse(self, text: &str) -> Option<End> {
        if self.is_newest_first() {
            let position = params::parse_cursor(text)?;
            let place = Place { value: position.first_seen_ms, position };
            return Some(End { since_ms: None, until_ms: None, place });
        }
        let mut parts = text.splitn(6, '~');
        let mut part = || parts.next();
        let instant = |text: &str| -> Option<Option<i64>> {
            if text.is_empty() {
                return Some(None);
            }
            let ms = text.parse().ok()?;
            jiff::Timestamp::from_millisecond(ms).ok().map(|_| Some(ms))
        };
        if part()? != self.sort.word() || part()? != self.order.word() {
            return None;
        }
        let (since_ms, until_ms) = (instant(part()?)?, instant(part()?)?);
        if since_ms.zip(until_ms).is_some_and(|(since, until)| since >= until) {
            return None;
        }
        let value = part()?.parse().ok()?;
        let position = params::parse_cursor(part()?)?;
        Some(End { since_ms, until_ms, place: Place { value, position } })
    }
}

#[cfg(test)]
mod tests {
    use super::{Filter, FlowSort, Order, Params, Place, Sorting};
    use crate::{flows::sample, live::Position};

    #[test]
    fn a_cursor_survives_the_round_trip_and_belongs_to_its_order() {
        let place = Place { value: -7, position: Position::of(&sample::record()) };
        let filter = Filter { since_ms: Some(5), ..Filter::default() };
        for sort in FlowSort::ALL {
            for order in [Order::Descending, Order::Ascending] {
                let by = Sorting { sort, order };
                let text = by.cursor(&filter, &place);
                let params = Params::of(&[("cursor", &text)]);
                let mut found = Filter { since_ms: Some(9), until_ms: Some(10), ..filter.clone() };
                let after = by.after(&params, &mut found).unwrap().unwrap();
                if by.is_newest_first() {
                    assert_eq!(after.position, place.position);
                    assert_eq!(found.since_ms, Some(9), "newest first needs no other range");
                } else {
                    assert_eq!(after, place);
                    assert_eq!((found.since_ms, found.until_ms), (Some(5), None));
                }
                let other = Sorting { sort: FlowSort::Last, order: Order::Ascending };
                if by != other {
                    let told = other.after(&params, &mut found).unwrap_err().to_string();
                    assert!(told.ends_with("with the same `sort` and `order`"), "{told}");
                }
                let broken = Params::of(&[("cursor", &text[..text.len() - 20])]);
                assert!(by.after(&broken, &mut found).is_err(), "{text}");
            }
        }
    }
}
