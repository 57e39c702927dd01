//! What the rows of a ranking, or the lines of a series, have in common: one property of a flow, or
//! several together.

use std::{cmp::Ordering, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{By, Key, Record};

/// One to four properties, each once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(into = "String", try_from = "String")]
#[schema(value_type = String)]
pub struct Grouping(Vec<By>);

/// The values that some records share, in the order of the grouping; `None` for a property that they
/// do not have.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group(pub Box<[Option<Key>]>);

/// It is no grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it must be one to four of the properties of a flow, each once, with commas between them")]
pub struct NotAGrouping;

impl Grouping {
    /// More make rows that have nothing in common any more.
    pub const MOST: usize = 4;

    /// What is grouped by.
    pub fn properties(&self) -> &[By] {
        &self.0
    }

    /// The group that a record belongs to.
    pub fn group(&self, record: &Record) -> Group {
        Group(self.0.iter().map(|by| by.key(record)).collect())
    }
}

impl From<By> for Grouping {
    fn from(by: By) -> Self {
        Self(vec![by])
    }
}

impl FromStr for Grouping {
    type Err = NotAGrouping;

    fn from_str(text: &str) -> Result<Self, NotAGrouping> {
        let words: Option<Vec<_>> =
            text.split(',').map(|word| By::from_word(&word.trim().replace('-', "_"))).collect();
        let all = words.ok_or(NotAGrouping)?;
        let is_twice = |(index, by): (usize, &By)| all[..index].contains(by);
        if all.len() > Self::MOST || all.iter().enumerate().any(is_twice) {
            return Err(NotAGrouping);
        }
        Ok(Self(all))
    }
}

impl TryFrom<String> for Grouping {
    type Error = NotAGrouping;

    fn try_from(text: String) -> Result<Self, NotAGrouping> {
        text.parse()
    }
}

impl From<Grouping> for String {
    fn from(grouping: Grouping) -> Self {
        grouping.to_string()
    }
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, by) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{}", by.word())?;
        }
        Ok(())
    }
}

impl Ord for Group {
    /// What has no value stands behind what has one.
    fn cmp(&self, other: &Self) -> Ordering {
        let place = |key: &Option<Key>| key.is_none();
        self.0
            .iter()
            .zip(&other.0)
            .map(|(a, b)| place(a).cmp(&place(b)).then_with(|| a.cmp(b)))
            .find(|order| order.is_ne())
            .unwrap_or_else(|| self.0.len().cmp(&other.0.len()))
    }
}

impl PartialOrd for Group {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::Grouping;
    use crate::flows::{Record, sample};

    #[test]
    fn a_list_of_words_is_a_grouping_and_a_wrong_one_is_none() {
        for (text, written) in [
            ("peer", Some("peer")),
            ("peer,dst_port", Some("peer,dst_port")),
            ("dst, peer ,rule,verdict", Some("dst,peer,rule,verdict")),
            ("", None),
            ("peer,", None),
            ("peer,peer", None),
            ("peer;dst", None),
            ("Peer", None),
            ("peer,user,src,dst,rule", None),
        ] {
            let read = text.parse::<Grouping>();
            assert_eq!(read.as_ref().ok().map(ToString::to_string).as_deref(), written, "{text}");
            if let Ok(grouping) = read {
                let json = serde_json::to_value(&grouping).unwrap();
                assert_eq!(serde_json::from_value::<Grouping>(json).unwrap(), grouping);
            }
        }
    }

    #[test]
    fn a_group_has_a_value_of_each_property() {
        let grouping: Grouping = "peer,dst_port,rule".parse().unwrap();
        let values = |record: &Record| -> Vec<_> {
            let group = grouping.group(record);
            group.0.iter().map(|key| key.as_ref().map(ToString::to_string)).collect()
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(values(&sample::record()), [some("alice"), some("443"), None]);
        assert_eq!(values(&sample::overflow()), [some("alice"), None, None]);
        let (flow, overflow) =
            (grouping.group(&sample::record()), grouping.group(&sample::overflow()));
        assert!(flow < overflow, "what has no port stands behind");
    }
}
