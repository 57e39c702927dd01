//! The word that somebody probably meant.

/// Longer words are no misspellings of anything here, and expensive to compare.
const MAX_BYTES: usize = 80;

/// The known word that differs from `word` in at most a third of its letters, and least.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .filter_map(|known| {
            let most = known.len().max(word.len()) / 3;
            if known.len().abs_diff(word.len()) > most || word.len() > MAX_BYTES {
                return None;
            }
            let distance = strsim::damerau_levenshtein(word, known);
            (distance <= most).then_some((distance, known))
        })
        .min()
        .map(|(_, known)| known)
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_word_is_near() {
        for (word, expected) in [("pots", Some("ports")), ("forks", None)] {
            assert_eq!(nearest(word, ["ports", "protocols"]), expected, "{word}");
        }
    }
}
