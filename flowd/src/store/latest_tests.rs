//! Numbers, of which files have as many as a number says.

use std::{cell::Cell, time::Duration};

use super::{FileId, Lasting, Latest};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Numbers(usize);

impl Lasting for Numbers {
    const MOST: usize = 10;

    fn len(&self) -> usize {
        self.0
    }
}

/// What is found of a file that should have so many, and whether it was read.
fn found(latest: &Latest<Numbers>, file: FileId, least: usize) -> (usize, bool) {
    let is_read = Cell::new(false);
    let read = || {
        is_read.set(true);
        Ok(Numbers(least))
    };
    let Numbers(count) = latest.of(file, |kept| kept.0 >= least, read).unwrap();
    (count, is_read.get())
}

#[test]
fn it_is_read_once_and_anew_when_it_does_not_do() {
    let latest = Latest::default();
    assert_eq!(found(&latest, FileId::sample(1), 2), (2, true));
    assert_eq!(found(&latest, FileId::sample(1), 2), (2, false));
    assert_eq!(found(&latest, FileId::sample(1), 3), (3, true));
    assert_eq!(found(&latest, FileId::sample(1), 2), (3, false));
    assert_eq!(found(&latest, FileId::sample(2), 1), (1, true));
}

#[test]
fn a_file_that_was_made_at_another_time_is_another_one() {
    let (latest, one) = (Latest::default(), FileId::sample(1));
    assert_eq!(found(&latest, one, 1), (1, true));
    let made = one.made.map(|made| made + Duration::from_nanos(1));
    assert_eq!(found(&latest, FileId { made, ..one }, 1), (1, true));
    // Where nobody says when, nothing is kept.
    let unsaid = FileId { made: None, ..one };
    assert_eq!(found(&latest, unsaid, 1), (1, true));
    assert_eq!(found(&latest, unsaid, 1), (1, true));
    assert_eq!(found(&latest, one, 1), (1, false));
}

#[test]
fn of_many_the_latest_are_kept_and_what_is_too_much_is_not() {
    let latest = Latest::default();
    (1..=3).for_each(|number| assert_eq!(found(&latest, FileId::sample(number), 4), (4, true)));
    assert_eq!(found(&latest, FileId::sample(3), 4), (4, false));
    assert_eq!(found(&latest, FileId::sample(2), 4), (4, false));
    assert_eq!(found(&latest, FileId::sample(1), 4), (4, true));
    assert_eq!(found(&latest, FileId::sample(4), Numbers::MOST + 1), (Numbers::MOST + 1, true));
    assert_eq!(found(&latest, FileId::sample(4), Numbers::MOST + 1), (Numbers::MOST + 1, true));
}
