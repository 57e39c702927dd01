//! Whatever may have gone unrecorded is a gap, and its bound holds.

use std::time::{Duration, Instant};

use flowd::{
    flows::{Counters, Stage},
    wire::{Gap, Timestamp},
};
use flowd_common::counter::Direction;
use flowd_tests::{
    counters::link_counters,
    detach,
    flowctl::Flowctl,
    machine, own_machine,
    site::Settings,
    skip,
    topology::Topology,
    traffic::{Load, udp},
    wait,
    wireguard::{Backend, backend},
};

use crate::books::flowd_on;

/// Two drains from now: flowd has looked after everything that was done before.
fn after_a_look(ctl: &Flowctl<'_>) {
    let before = ctl.status().drain.count;
    wait::until(wait::SOON, "flowd looks", || ctl.status().drain.count >= before + 2);
}

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Timestamp(i64::try_from(since.expect("after 1970").as_millis()).expect("it fits"))
}

/// The kernel's device counts what WireGuard makes of packets, and messages of its own.
fn assert_bound(gap: &Gap, missing: Counters) {
    let bound = (gap.packets.expect("known"), gap.bytes.expect("known"));
    let expected = (missing.packets(), missing.bytes());
    match backend() {
        Backend::Userspace => assert_eq!(bound, expected, "{gap:#?}"),
        Backend::Kernel => assert!(bound.0 >= expected.0 && bound.1 >= expected.1, "{gap:#?}"),
    }
}

#[test]
fn a_program_that_is_taken_off_is_put_back_and_what_it_missed_is_a_gap() {
    let net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::on_port(ends.0, ends.1, 7000);
    let (rx, tx) = (Direction::Ingress, Direction::Egress);
    let mut counted = Counters::default();
    for (round, off) in [&[rx][..], &[tx], &[rx, tx]].into_iter().enumerate() {
        let load = pair.exchange(&[100; 5]);
        counted += Load::both(load, load);
        ctl.one_flow(&["--port", "7000"], counted);
        after_a_look(&ctl);

        daemon.pause();
        let paused = now();
        off.iter().for_each(|direction| detach::programs(&net.gateway, "wg0", *direction));
        let load = pair.exchange(&[1000; 7]);
        let seen = |direction| if off.contains(&direction) { Load::default() } else { load };
        let missed = |direction| if off.contains(&direction) { load } else { Load::default() };
        counted += Load::both(seen(rx), seen(tx));
        daemon.resume();
        let gap = wait::until_some(wait::SOON, "the program hangs again", || {
            let gaps = ctl.gaps(&["--stage", "detached", "--interface", "wg0"]);
            let newest = gaps.first().filter(|_| gaps.len() == round + 1);
            newest.filter(|gap| gap.to.is_some()).cloned()
        });
        assert_bound(&gap, Load::both(missed(rx), missed(tx)));
        assert_eq!((gap.stage, gap.interface.as_deref()), (Stage::Detached, Some("wg0")));
        assert!(gap.from <= paused && gap.to.is_some_and(|to| to >= paused), "{gap:#?}");
        assert!(gap.detail.starts_with("somebody took "), "{gap:#?}");
    }
    let load = pair.exchange(&[100; 5]);
    counted += Load::both(load, load);
    ctl.one_flow(&["--port", "7000"], counted);

    // WireGuard's counters tell of it too, in a gap of stage `coverage` that grows meanwhile.
    let all = wait::until_some(wait::SOON, "the summary has the gaps' sum", || {
        let all = ctl.gaps(&[]);
        let sum = all.iter().filter_map(|gap| gap.packets).sum::<u64>();
        (ctl.summary().gaps.packets == sum).then_some(all)
    });
    let output = ctl.run(&["summary"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("packets may be missing (flowctl gaps --until"), "{text}");
    let before = all.iter().map(|gap| gap.from).min().expect("three").to_string();
    let earlier: flowd::wire::Summary = ctl.json(&["summary", "--until", &before]);
    assert_eq!(earlier.gaps.count, 0, "a range that touches none says nothing");
    daemon.stop();
}

#[test]
fn a_program_that_is_taken_off_while_flowd_is_down_is_told_at_the_start() {
    let net = Topology::new(1);
    let (site, daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::on_port(ends.0, ends.1, 7000);
    let counted = pair.exchange(&[100; 5]);
    ctl.one_flow(&["--port", "7000"], Load::both(counted, counted));
    after_a_look(&ctl);
    daemon.kill();
    for direction in Direction::BOTH {
        detach::programs(&net.gateway, "wg0", direction);
    }
    let missed = pair.exchange(&[1000; 7]);
    let daemon = site.start(&net.gateway);
    let ctl = site.flowctl(&net.gateway);
    assert_bound(&ctl.ended_gap("detached"), Load::both(missed, missed));
    let more = pair.exchange(&[10; 3]);
    let counted = counted + more;
    ctl.one_flow(&["--port", "7000"], Load::both(counted, counted));
    daemon.stop();
}

#[test]
fn a_full_table_is_a_gap_of_exactly_what_is_in_no_flow() {
    let net = Topology::new(1);
    // No flow ends before the table is full.
    let idle_timeout_ms = machine::size(1_000, 15_000);
    let settings = Settings { table_size: 64, idle_timeout_ms, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let mut sent = Load::default();
    let mut flood = || {
        for _ in 0..200 {
            sent = sent + udp::Pair::new(ends.0, ends.1).exchange(&[50]);
        }
        sent
    };
    for round in 1..=2 {
        let sent = flood();
        wait::until_equal("everything is accounted for", &Load::both(sent, sent), || {
            ctl.summary().counters
        });
        let overflow = ctl.interface("wg0").expect("attached").overflow;
        assert!(overflow.packets() > 0);
        let expected = (Some(overflow.packets()), Some(overflow.bytes()));
        wait::until_equal(&format!("the bound of round {round}"), &expected, || {
            let gap = ctl.ended_gap("table_full");
            (gap.packets, gap.bytes)
        });
        assert_eq!(ctl.summary().gaps.packets, overflow.packets());
    }
    let expected = ctl.ended_gap("table_full");
    daemon.stop();
    let daemon = site.start(&net.gateway);
    after_a_look(&site.flowctl(&net.gateway));
    assert_eq!(site.flowctl(&net.gateway).gaps(&["--stage", "table_full"]), [expected]);
    daemon.stop();
}

#[test]
fn an_interface_that_is_gone_is_a_gap_until_it_is_back() {
    let mut net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    after_a_look(&site.flowctl(&net.gateway));
    net.lower("wg0");
    let open = wait::until_some(wait::SOON, "it is told", || {
        let told = site.flowctl(&net.gateway).gaps(&["--stage", "interface"]).pop();
        told.filter(|gap| gap.gap_id.is_some())
    });
    assert_eq!((open.interface.as_deref(), open.to, open.packets), (Some("wg0"), None, Some(0)));
    let output = site.flowctl(&net.gateway).run(&["status"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("Gaps OPEN   interface wg0: see `flowctl gaps`"), "{text}");

    daemon.pause();
    net.raise("wg0");
    net.reconnect(&net.peers[0]);
    let missed = link_counters(&net.gateway, "wg0");
    assert!(missed.packets() >= 2, "{missed:?}");
    daemon.resume();
    let ctl = site.flowctl(&net.gateway);
    ctl.attached("wg0");
    let gap = ctl.ended_gap("interface");
    assert_eq!((gap.gap_id, gap.from, gap.packets), (open.gap_id, open.from, Some(0)));
    // WireGuard may have said more before flowd came.
    let unseen = ctl.ended_gap("attach");
    assert!(unseen.packets >= Some(missed.packets()), "{unseen:#?} {missed:?}");
    assert!(unseen.bytes >= Some(missed.bytes()), "{unseen:#?} {missed:?}");
    daemon.stop();
}

#[test]
fn an_interface_that_is_gone_for_good_is_not_waited_for_over_restarts() {
    let mut net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    for (round, killed) in [false, true].into_iter().enumerate() {
        net.lower("wg0");
        let ctl = site.flowctl(&net.gateway);
        let open = wait::until_some(wait::SOON, "it is told", || {
            ctl.gaps(&["--stage", "interface"]).into_iter().find(|gap| gap.to.is_none())
        });
        // The row is in the store by then.
        wait::until(wait::SOON, "it is written", || {
            ctl.gaps(&["--stage", "interface"]).iter().all(|gap| gap.gap_id.is_some())
        });
        if killed {
            daemon.kill();
        } else {
            daemon.stop();
        }
        daemon = site.start(&net.gateway);
        let gaps = site.flowctl(&net.gateway).gaps(&["--stage", "interface"]);
        assert_eq!(gaps.len(), round + 1, "{gaps:#?}");
        let ended = gaps.iter().find(|gap| gap.from == open.from).expect("it is kept");
        assert!(ended.to.is_some(), "{ended:#?}");
        net.raise("wg0");
        site.flowctl(&net.gateway).attached("wg0");
    }
    daemon.stop();
}

#[test]
fn a_late_drain_is_a_gap_in_which_nothing_is_missing() {
    const LATE: Duration = Duration::from_secs(3);
    let net = Topology::new(1);
    let (site, mut daemon) = flowd_on(&net, &Settings::default());
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::on_port(ends.0, ends.1, 7000);
    let mut sent = pair.exchange(&[100; 5]);
    after_a_look(&ctl);
    daemon.pause();
    let paused = (now(), Instant::now());
    while paused.1.elapsed() < LATE {
        sent = sent + pair.exchange(&[100]);
    }
    let resumed = now();
    daemon.resume();
    let gap = ctl.ended_gap("drain");
    assert_eq!((gap.packets, gap.bytes, gap.interface.as_deref()), (Some(0), Some(0), None));
    assert!(gap.from <= paused.0 && gap.to.is_some_and(|to| to >= resumed), "{gap:#?}");
    assert!(gap.detail.contains(" s late: flowd was stopped"), "{gap:#?}");
    ctl.one_flow(&["--port", "7000"], Load::both(sent, sent));
    daemon.stop();
}

/// Sets the wall clock of the machine; what was elapsed stays elapsed when it is set back.
struct SteppedClock {
    by_seconds: i64,
}

impl SteppedClock {
    fn step(&mut self, by_seconds: i64) {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the kernel writes into a `timespec` that lives through the call.
        unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &raw mut time) };
        time.tv_sec += by_seconds;
        // SAFETY: the kernel reads a `timespec` that lives through the call.
        let set = unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) };
        assert_eq!(set, 0, "the clock can be set: {}", std::io::Error::last_os_error());
        self.by_seconds += by_seconds;
    }
}

impl Drop for SteppedClock {
    fn drop(&mut self) {
        self.step(-self.by_seconds);
    }
}

#[test]
fn a_clock_that_is_stepped_is_a_gap_and_no_packet_is_lost_or_doubled() {
    if !own_machine::is_given() {
        skip!("it sets the clock of the machine");
    }
    let net = Topology::new(1);
    let settings = Settings { active_timeout_ms: 1000, ..Settings::default() };
    let (site, daemon) = flowd_on(&net, &settings);
    let (ctl, peer) = (site.flowctl(&net.gateway), &net.peers[0]);
    let ends = ((&peer.namespace, peer.v4.into()), (&net.gateway, net.gateway_v4(peer)));
    let pair = udp::Pair::on_port(ends.0, ends.1, 7000);
    let mut clock = SteppedClock { by_seconds: 0 };
    let mut sent = Load::default();
    let mut records = 0;
    for (round, step_seconds) in [3_600, -3_600, -86_400, 86_400].into_iter().enumerate() {
        wait::until(wait::SOON, "another record", || {
            sent = sent + pair.exchange(&[100]);
            ctl.flows(&["--port", "7000"]).first().is_some_and(|flow| flow.records > records)
        });
        records = ctl.flows(&["--port", "7000"])[0].records;
        let before = now();
        clock.step(step_seconds);
        let gap = wait::until_some(wait::SOON, "the step is told", || {
            let gaps = ctl.gaps(&["--stage", "clock"]);
            let newest = gaps.iter().max_by_key(|gap| gap.gap_id).cloned();
            newest.filter(|_| gaps.len() == round + 1)
        });
        let (from, to) = (gap.from.0, gap.to.expect("it is over").0);
        assert!((to - from - step_seconds.abs() * 1_000).abs() < 10_000, "{gap:#?}");
        assert!(from <= before.0 && to >= before.0 - 1_000, "{gap:#?}");
        assert_eq!((gap.packets, gap.bytes), (Some(0), Some(0)));
        let direction = if step_seconds > 0 { "set forward by" } else { "set back by" };
        assert!(gap.detail.contains(direction), "{gap:#?}");
    }
    drop(clock);
    let load = pair.exchange(&[100; 3]);
    sent = sent + load;
    let flow = ctl.one_flow(&["--port", "7000"], Load::both(sent, sent));
    assert_eq!(ctl.summary().counters, ctl.interface("wg0").expect("attached").seen);
    let detail = ctl.flow(&flow.flow_id);
    let sum = detail.records.iter().fold(Counters::default(), |sum, one| sum + one.counters);
    assert_eq!(sum, Load::both(sent, sent));
    for pair in detail.records.windows(2) {
        assert!(pair[0].record_id < pair[1].record_id || pair[1].record_id.is_none());
        assert_eq!(pair[0].window_end, pair[1].window_start, "windows follow each other");
        assert!(pair[1].window_start <= pair[1].window_end);
    }
    daemon.stop();
}
