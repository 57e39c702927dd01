//! Keys and answers, and the state that they leave.

use proptest::prelude::*;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Action, LIMIT, Model, RowKey, SEARCHED, Tab};
use crate::{
    ctl::live::{
        sample::{self, FLOWS, Flow},
        view,
    },
    flows::{Order, RateSort, Verdict},
};

fn model(flows: &[Flow]) -> Model {
    let mut model = Model::default();
    model.take(&sample::status(1_000), sample::rates(flows, flows.len() as u64));
    model
}

fn press(model: &mut Model, code: KeyCode) -> Action {
    model.press(KeyEvent::from(code))
}

fn type_text(model: &mut Model, text: &str) {
    for character in text.chars() {
        press(model, KeyCode::Char(character));
    }
}

fn ports(model: &Model) -> Vec<u16> {
    let flows = model.shown.iter().map(|index| &model.flows[*index].what.record);
    flows.map(|record| record.dst.port.unwrap()).collect()
}

fn selected_port(model: &Model) -> Option<u16> {
    let selected = model.selected.as_ref()?;
    let row = model.flows.iter().find(|row| row.key == *selected)?;
    row.what.record.dst.port
}

#[test]
fn flows_are_sorted_by_their_rate_and_by_what_s_says() {
    let mut model = model(&FLOWS);
    assert_eq!(ports(&model), [443, 5432, 25, 8443, 22]);
    assert_eq!(press(&mut model, KeyCode::Char('r')), Action::Ask);
    assert_eq!((ports(&model)[0], model.order), (22, Order::Ascending));
    let mut seen = vec![model.sort];
    for _ in 1..RateSort::ALL.len() {
        assert_eq!(press(&mut model, KeyCode::Char('s')), Action::Ask);
        seen.push(model.sort);
    }
    assert_eq!(seen, RateSort::ALL);
    press(&mut model, KeyCode::Char('s'));
    assert_eq!(model.sort, RateSort::Rate);
}

#[test]
fn the_selection_keeps_to_its_flow_and_then_to_its_place() {
    let mut model = model(&FLOWS);
    assert_eq!(model.selected, None);
    press(&mut model, KeyCode::Down);
    assert_eq!(selected_port(&model), Some(443), "the first key selects the first row");
    press(&mut model, KeyCode::Char('j'));
    assert_eq!((selected_port(&model), model.cursor), (Some(5432), 1));
    let mut flows = FLOWS;
    flows[2].2 = 9_999_999;
    model.take(&sample::status(2_000), sample::rates(&flows, 5));
    assert_eq!((selected_port(&model), model.cursor), (Some(5432), 0), "it went up with its flow");
    press(&mut model, KeyCode::Char('r'));
    assert_eq!((selected_port(&model), model.cursor), (Some(5432), 4));
    model.take(&sample::status(3_000), sample::rates(&FLOWS[..2], 2));
    assert_eq!(
        (selected_port(&model), model.cursor),
        (Some(443), 1),
        "the last row took its place"
    );
    model.take(&sample::status(4_000), sample::nothing());
    assert_eq!((model.selected.clone(), model.cursor), (None, 0));
}

#[test]
fn a_text_finds_flows_by_all_that_is_said_of_them() {
    let mut model = model(&FLOWS);
    for (text, found) in [
        ("ALICE", vec![443, 22]),
        ("attic", vec![5432]),
        (":443", vec![443]),
        ("443", vec![443, 8443]),
        ("deny", vec![25]),
        ("no-smtp", vec![25]),
        ("tcp alice :22", vec![22]),
        ("10.0.0.1", vec![443, 5432, 25, 8443, 22]),
        ("udp", vec![]),
    ] {
        assert_eq!(press(&mut model, KeyCode::Char('/')), Action::Show);
        type_text(&mut model, text);
        assert_eq!(ports(&model), found, "{text}");
        assert_eq!(model.limit(), SEARCHED, "more is looked at");
        assert_eq!(press(&mut model, KeyCode::Esc), Action::Ask, "{text}");
        assert_eq!((ports(&model).len(), model.limit()), (FLOWS.len(), LIMIT));
    }
    press(&mut model, KeyCode::Char('/'));
    type_text(&mut model, "qdx");
    press(&mut model, KeyCode::Backspace);
    press(&mut model, KeyCode::Enter);
    assert_eq!((model.text.as_str(), model.is_typing), ("qd", false), "keys went into the text");
}

#[test]
fn esc_takes_back_one_thing_after_the_other_and_then_quits() {
    let mut model = model(&FLOWS);
    press(&mut model, KeyCode::Tab);
    press(&mut model, KeyCode::Char('j'));
    assert_eq!(press(&mut model, KeyCode::Enter), Action::Ask);
    assert_eq!((model.tab, ports(&model)), (Tab::Flows, vec![443, 22]));
    press(&mut model, KeyCode::Char('d'));
    assert_eq!(ports(&model), Vec::<u16>::new(), "none of them is denied");
    type_text(&mut model, "/x");
    press(&mut model, KeyCode::Enter);
    let mut taken_back = Vec::new();
    while press(&mut model, KeyCode::Esc) != Action::Quit {
        taken_back.push((model.text.len(), model.only_peer.is_some(), model.only_denied));
    }
    assert_eq!(taken_back, [(0, true, true), (0, false, true), (0, false, false)]);
    let quits =
        [KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL), KeyCode::Char('q').into()];
    assert!(quits.into_iter().all(|key| model.press(key) == Action::Quit));
    let alt = KeyEvent::new(KeyCode::Tab, KeyModifiers::ALT);
    assert_eq!((model.press(alt), model.tab), (Action::Show, Tab::Peers));
}

#[test]
fn only_what_is_denied_is_left_at_once() {
    let mut model = model(&FLOWS);
    assert_eq!(press(&mut model, KeyCode::Char('d')), Action::Ask);
    assert_eq!(ports(&model), [25]);
    press(&mut model, KeyCode::Tab);
    assert_eq!(model.shown.len(), 1, "and the peer that has it");
}

#[test]
fn nothing_moves_while_it_is_paused_but_details_are_asked_for() {
    let mut model = model(&FLOWS);
    assert_eq!(press(&mut model, KeyCode::Char('p')), Action::Show);
    assert!(!model.is_asking());
    model.take(&sample::status(2_000), sample::rates(&FLOWS[..1], 1));
    assert_eq!(model.flows.len(), FLOWS.len());
    assert_eq!(press(&mut model, KeyCode::Enter), Action::Ask);
    assert!(model.is_asking());
    assert_eq!(model.wanted_flow(), Some(sample::flow_id(443)));
    model.take_flow(sample::flow_id(22), Ok(sample::detail(FLOWS[1])));
    assert!(model.is_asking(), "that was another flow");
    model.take_flow(sample::flow_id(443), Ok(sample::detail(FLOWS[0])));
    assert!(!model.is_asking());
    press(&mut model, KeyCode::Esc);
    assert_eq!(press(&mut model, KeyCode::Char('p')), Action::Ask);
}

#[test]
fn a_restart_and_counters_that_go_back_give_no_rate() {
    let mut model = Model::default();
    model.take(&sample::status(1_000), sample::nothing());
    assert_eq!(model.head.rate, None, "there is nothing to compare with");
    model.take(&sample::status(3_000), sample::nothing());
    assert_eq!(model.head.rate.map(|rate| rate.rx_bytes), Some(3_400_000));
    let mut back = sample::status(4_000);
    back.interfaces[0].seen.rx_bytes = 0;
    model.take(&back, sample::nothing());
    assert_eq!((model.head.rate, model.head.restarted), (None, None));
    let mut again = sample::status(5_000);
    again.started.0 += 1;
    model.take(&again, sample::nothing());
    assert_eq!((model.head.rate, model.head.restarted), (None, Some(again.now)));
    assert_eq!(model.head.history.len(), 1);
}

#[test]
fn a_daemon_that_is_lost_is_told_until_it_answers() {
    let mut model = model(&FLOWS);
    model.lose("no daemon listens".to_owned());
    assert_eq!(model.flows.len(), FLOWS.len(), "what was known stays");
    model.take(&sample::status(2_000), sample::rates(&FLOWS, 5));
    assert_eq!(model.trouble, None);
}

fn key() -> impl Strategy<Value = KeyEvent> {
    let codes = vec![
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Left,
        KeyCode::Enter,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Esc,
        KeyCode::F(1),
        KeyCode::Null,
    ];
    let code = prop_oneof![
        2 => prop::sample::select(codes),
        2 => prop::sample::select("q?/p dsrjkgG:4acé界".chars().collect::<Vec<_>>())
            .prop_map(KeyCode::Char),
        1 => any::<char>().prop_map(KeyCode::Char),
    ];
    (code, prop::sample::select(vec![0, 0, 0, 0, 1, 2, 4])).prop_map(|(code, modifiers)| {
        KeyEvent::new(code, KeyModifiers::from_bits_truncate(modifiers))
    })
}

#[derive(Clone, Debug)]
enum Step {
    Key(KeyEvent),
    Answer(Vec<(usize, u64)>),
    Size(u16, u16),
    Lost,
}

fn step() -> impl Strategy<Value = Step> {
    let flows = prop::collection::vec((0..FLOWS.len(), 0_u64..5), 0..8);
    prop_oneof![
        6 => key().prop_map(Step::Key),
        2 => flows.prop_map(Step::Answer),
        1 => (0_u16..140, 0_u16..50).prop_map(|(width, height)| Step::Size(width, height)),
        1 => Just(Step::Lost),
    ]
}

proptest! {
    #[test]
    fn whatever_happens_the_selection_is_a_row_that_is_shown(
        steps in prop::collection::vec(step(), 0..40),
    ) {
        use ratatui::{Terminal, backend::TestBackend};

        let mut model = Model::default();
        let style = view::Style::sample();
        let mut size = (80, 24);
        for (index, step) in steps.into_iter().enumerate() {
            let before = model.selected.clone();
            match step {
                Step::Key(key) => drop(model.press(key)),
                Step::Size(width, height) => size = (width, height),
                Step::Lost => model.lose("gone".to_owned()),
                Step::Answer(flows) => {
                    // Ports tell flows apart.
                    let flows: Vec<Flow> = flows
                        .into_iter()
                        .map(|(which, bytes)| (FLOWS[which].0, FLOWS[which].1, bytes, Verdict::Deny))
                        .collect();
                    let rates = sample::rates(&flows, flows.len() as u64);
                    model.take(&sample::status(index as i64 * 1_000), rates);
                    let is_there = |key: &RowKey| model.flows.iter().any(|row| row.key == *key)
                        || model.peers.iter().any(|row| row.key == *key);
                    if let Some(key) = before.filter(|key| is_there(key))
                        && model.text.is_empty() && model.only_peer.is_none()
                    {
                        prop_assert_eq!(model.selected.as_ref(), Some(&key), "it stays");
                    }
                }
            }
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            terminal.draw(|frame| view::paint(frame, &mut model, &style)).unwrap();
            prop_assert!(model.cursor == 0 || model.cursor < model.shown.len());
            prop_assert!(model.offset <= model.cursor || model.has_help || model.details.is_some());
            if let Some(selected) = &model.selected {
                let at_cursor = model.key_at(model.cursor);
                prop_assert_eq!(at_cursor.as_ref(), Some(selected));
            }
        }
    }
}
