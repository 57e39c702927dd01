use std::{net::SocketAddr, time::Duration};

use proptest::prelude::*;

use super::{
    Look, Moment, PeerEvent, PeerEventKind as Kind, PeerSession, SESSION_MS, Session, sessions,
};

fn endpoint(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

fn look(ms: i64, handshake_ms: Option<i64>, port: u16) -> Look {
    let monotonic = Duration::from_millis(ms.unsigned_abs());
    Look {
        now: Moment { wall_ms: ms, monotonic },
        handshake_ms,
        endpoint: (port > 0).then(|| endpoint(port)),
    }
}

/// What a session tells of looks at (now, handshake, port).
fn told(session: &mut PeerSession, looks: &[(i64, Option<i64>, u16)]) -> Vec<(i64, Kind)> {
    let mut told = Vec::new();
    for (ms, handshake_ms, port) in looks {
        session.observe(&look(*ms, *handshake_ms, *port), |at, kind| told.push((at, kind)));
    }
    told
}

#[test]
fn a_session_begins_with_a_handshake_and_ends_three_minutes_after_the_last() {
    let looks = [
        (500, None, 0),
        (1_000, Some(900), 1),
        (120_000, Some(119_900), 1),
        (121_000, Some(119_900), 2),
        (299_800, Some(119_900), 2),
        (299_950, Some(119_900), 2),
        (400_000, Some(119_900), 3),
        (500_000, Some(499_900), 4),
    ];
    let expected = [
        (900, Kind::Connect),
        (121_000, Kind::Roam),
        (299_900, Kind::Disconnect),
        (499_900, Kind::Connect),
    ];
    assert_eq!(told(&mut PeerSession::default(), &looks), expected);
}

#[test]
fn whatever_was_missed_between_two_looks_is_told_in_order() {
    let looks = [(1_000, Some(900), 1), (900_000, Some(600_000), 2)];
    let expected = [
        (900, Kind::Connect),
        (180_900, Kind::Disconnect),
        (600_000, Kind::Connect),
        (780_000, Kind::Disconnect),
    ];
    assert_eq!(told(&mut PeerSession::default(), &looks), expected);
}

#[test]
fn a_peer_that_forgot_its_handshake_has_disconnected() {
    let looks = [(1_000, Some(900), 1), (5_000, None, 0), (9_000, Some(8_900), 1)];
    let expected = [(900, Kind::Connect), (5_000, Kind::Disconnect), (8_900, Kind::Connect)];
    assert_eq!(told(&mut PeerSession::default(), &looks), expected);
}

#[test]
fn a_clock_that_is_set_ends_no_session() {
    let mut session = PeerSession::default();
    assert_eq!(told(&mut session, &[(1_000, Some(900), 1)]), [(900, Kind::Connect)]);
    for (wall_ms, handshake_ms) in [(9_000_000, 900), (-5_000_000, 900), (9_002_000, 9_001_900)] {
        let now = Moment { wall_ms, monotonic: Duration::from_secs(60) };
        let look = Look { now, handshake_ms: Some(handshake_ms), endpoint: Some(endpoint(1)) };
        session.observe(&look, |at, kind| panic!("{at} {kind:?}"));
    }
}

#[test]
fn a_restart_invents_no_session_and_loses_no_end() {
    let now_ms = 1_000_000;
    let connected = Some(100_000);
    // handshake and session as stored, the handshake now; what is told
    type Case<'a> = (Option<i64>, Option<i64>, Option<i64>, &'a [(i64, Kind)]);
    let cases: [Case<'_>; 9] = [
        (Some(900_000), connected, Some(900_000), &[]),
        (Some(800_000), connected, Some(900_000), &[]),
        (Some(100_000), connected, Some(900_000), &[]),
        (Some(700_000), connected, Some(700_000), &[(880_000, Kind::Disconnect)]),
        (Some(600_000), connected, Some(700_000), &[(880_000, Kind::Disconnect)]),
        (Some(700_000), None, Some(900_000), &[(900_000, Kind::Connect)]),
        (None, None, Some(900_000), &[(900_000, Kind::Connect)]),
        (None, None, Some(700_000), &[]),
        (Some(700_000), connected, None, &[(880_000, Kind::Disconnect)]),
    ];
    for (handshake_ms, connected_ms, seen_ms, expected) in cases {
        let mut session = PeerSession::of(handshake_ms, connected_ms, Some(endpoint(1)));
        let mut told = Vec::new();
        // The clock that only runs has only just begun.
        let now = Moment { wall_ms: now_ms, monotonic: Duration::from_millis(3) };
        let look = Look { now, handshake_ms: seen_ms, endpoint: Some(endpoint(1)) };
        session.resume(&look, |at, kind| told.push((at, kind)));
        assert_eq!(told, expected, "{handshake_ms:?} {connected_ms:?} {seen_ms:?}");
    }
}

#[test]
fn events_tell_of_sessions_whole_and_cut_off() {
    let event = |at_ms, kind, port| PeerEvent {
        at_ms,
        kind,
        epoch: 1,
        endpoint: Some(endpoint(port)),
        was: None,
    };
    let events = [
        event(5, Kind::Roam, 2),
        event(9, Kind::Disconnect, 2),
        event(10, Kind::Reset, 2),
        event(20, Kind::Connect, 3),
        event(25, Kind::Roam, 4),
    ];
    let expected = [
        Session { connected_ms: None, disconnected_ms: Some(9), endpoints: vec![(5, endpoint(2))] },
        Session {
            connected_ms: Some(20),
            disconnected_ms: None,
            endpoints: vec![(20, endpoint(3)), (25, endpoint(4))],
        },
    ];
    assert_eq!(sessions(&events), expected);
    assert_eq!(sessions(&[]), []);
}

#[test]
fn kinds_have_one_number_and_one_word() {
    for kind in
        [Kind::Added, Kind::Removed, Kind::Connect, Kind::Disconnect, Kind::Roam, Kind::Reset]
    {
        assert_eq!(Kind::from_number(kind.number()), Some(kind));
        assert_eq!(Kind::from_word(kind.word()), Some(kind));
    }
}

/// The specification: handshakes less than three minutes apart are one session.
fn slow_sessions(handshakes: &[i64], now_ms: i64) -> Vec<(i64, Option<i64>)> {
    let mut sessions: Vec<(i64, Option<i64>)> = Vec::new();
    for (index, at) in handshakes.iter().enumerate() {
        if index == 0 || at - handshakes[index - 1] >= SESSION_MS {
            sessions.push((*at, None));
        }
        let next = handshakes.get(index + 1).copied().unwrap_or(now_ms);
        if next - at >= SESSION_MS {
            sessions.last_mut().unwrap().1 = Some(at + SESSION_MS);
        }
    }
    sessions
}

proptest! {
    #[test]
    fn sessions_are_those_of_the_slow_model(
        // milliseconds until the next look, the age of a new handshake by then, the port
        steps in prop::collection::vec(
            (1_i64..200_000, prop::option::of(0_i64..200_000), 1_u16..3),
            1..60,
        ),
    ) {
        let mut session = PeerSession::default();
        let (mut now_ms, mut handshakes) = (1_000_000, Vec::new());
        let mut events = Vec::new();
        for (wait_ms, age_ms, port) in steps {
            now_ms += wait_ms;
            // Only the newest handshake before a look can be seen.
            handshakes.extend(age_ms.filter(|age| *age < wait_ms).map(|age| now_ms - age));
            let look = look(now_ms, handshakes.last().copied(), port);
            session.observe(&look, |at_ms, kind| {
                let endpoint = look.endpoint;
                events.push(PeerEvent { at_ms, kind, epoch: 1, endpoint, was: None });
            });
        }
        let seen: Vec<_> = sessions(&events)
            .iter()
            .map(|session| (session.connected_ms.unwrap(), session.disconnected_ms))
            .collect();
        prop_assert_eq!(seen, slow_sessions(&handshakes, now_ms));
        prop_assert!(events.is_sorted_by_key(|event| event.at_ms), "{events:?}");
        for session in sessions(&events) {
            let stays = session.endpoints.windows(2).any(|pair| pair[0].1 == pair[1].1);
            prop_assert!(!stays, "a peer roams to another address: {session:?}");
        }
    }
}
