//! `[[api.grants]]`: groups that may see sums and flows of one peer or user at a time, and no more.

use serde::Deserialize;

use super::Problem;

/// What members of a group may see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The group, by name or number.
    pub group: String,
    /// Peers that may be asked about, as they are asked about: by name or public key.
    pub peers: Vec<String>,
    /// Users that may be asked about.
    pub users: Vec<String>,
    /// Whether addresses are shown; if not, there are sums only.
    pub addresses: bool,
}

impl Grant {
    /// Whether it names nobody: then each peer and each user may be asked about.
    pub fn is_of_everybody(&self) -> bool {
        self.peers.is_empty() && self.users.is_empty()
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    group: String,
    peers: Option<Vec<String>>,
    users: Option<Vec<String>>,
    #[serde(default)]
    addresses: bool,
}

impl Table {
    pub(super) fn into_grant(self, problems: &mut Vec<Problem>) -> Grant {
        let Self { group, peers, users, addresses } = self;
        let is_name = |name: &str| !name.is_empty() && !name.chars().any(char::is_control);
        if !is_name(&group) {
            problems.push(Problem::new(
                "`api.grants.group` is no name that a group can have; write a name or a number"
                    .to_owned(),
            ));
        }
        let mut list = |key, names: Option<Vec<String>>| {
            let Some(names) = names else { return Vec::new() };
            if names.is_empty() || !names.iter().all(|name| is_name(name)) {
                problems.push(Problem::new(format!(
                    "`api.grants.{key}` has an empty name or none; leave it out to mean everybody"
                )));
            }
            names
        };
        let (peers, users) = (list("peers", peers), list("users", users));
        Grant { group, peers, users, addresses }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::Config;

    #[test]
    fn a_grant_is_of_a_group_and_names_somebody_or_everybody() {
        let text = "[[api.grants]]\ngroup = \"helpdesk\"\n[[api.grants]]\ngroup = \"7\"\n\
                    users = [\"alice@example.com\"]\naddresses = true\n";
        let grants = Config::parse(text).unwrap().grants;
        assert!(grants[0].is_of_everybody() && !grants[0].addresses);
        assert!(!grants[1].is_of_everybody() && grants[1].addresses);
        let cases = [
            ("group = \"\"", "`api.grants.group` is no name"),
            ("group = \"a\"\npeers = []", "`api.grants.peers` has an empty name or none"),
            ("group = \"a\"\nusers = [\"\"]", "`api.grants.users` has an empty name or none"),
            ("peers = [\"a\"]", "line 1: "),
            ("group = \"a\"\npeer = [\"a\"]", "line 3: "),
        ];
        for (text, expected) in cases {
            let problems = Config::parse(&format!("[[api.grants]]\n{text}\n")).unwrap_err();
            let told = problems[0].to_string();
            assert!(told.starts_with(expected), "{text:?}: {told}");
            assert_eq!(told.lines().count(), 1);
        }
    }
}
