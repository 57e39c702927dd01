//! Pictures, as they are on screens of some sizes.

use ratatui::{Terminal, backend::TestBackend, crossterm::event::KeyCode};

use super::{
    model::Model,
    sample::{self, FLOWS, Flow},
    view::{Style, paint},
};

/// The lines of a screen, without the spaces at their ends.
fn picture(model: &mut Model, size: (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
    terminal.draw(|frame| paint(frame, model, &Style::sample())).unwrap();
    let mut lines = Vec::new();
    let buffer = terminal.backend().buffer();
    for y in 0..size.1 {
        let mut line = String::new();
        let mut skip = 0;
        for x in 0..size.0 {
            let symbol = buffer[(x, y)].symbol();
            if skip == 0 {
                line.push_str(symbol);
                skip = unicode_width::UnicodeWidthStr::width(symbol).max(1);
            }
            skip -= 1;
        }
        lines.push(line.trim_end().to_owned());
    }
    lines.join("\n")
}

fn model(flows: &[Flow], all: u64) -> Model {
    let mut model = Model::default();
    for second in 1..=6 {
        model.take(&sample::status(second * second * 1_000), sample::rates(flows, all));
    }
    model
}

/// Compares with the file, which `FLOWD_TEST_BLESS=1` writes anew.
fn assert_is(name: &str, picture: &str) {
    let path = format!("{}/src/ctl/live/pictures/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("FLOWD_TEST_BLESS").is_some() {
        std::fs::write(&path, format!("{picture}\n")).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(picture, wanted.strip_suffix('\n').unwrap_or_default(), "{name}\n{picture}");
}

#[test]
fn flows_are_painted_on_screens_of_every_size() {
    let mut model = model(&FLOWS, 5);
    model.press(KeyCode::Down.into());
    model.press(KeyCode::Down.into());
    for size in [(80, 24), (120, 40), (40, 10), (30, 5), (1, 1)] {
        assert_is(&format!("flows-{}x{}", size.0, size.1), &picture(&mut model, size));
    }
}

#[test]
fn peers_are_painted_with_their_shares() {
    let mut model = model(&FLOWS, 1_000_000);
    model.press(KeyCode::Tab.into());
    assert_is("peers-80x24", &picture(&mut model, (80, 24)));
}

#[test]
fn what_is_left_out_and_what_is_wrong_is_said() {
    let mut model = model(&FLOWS, 1_000_000);
    for key in "/bob".chars() {
        model.press(KeyCode::Char(key).into());
    }
    assert_is("typing-80x10", &picture(&mut model, (80, 10)));
    model.press(KeyCode::Enter.into());
    model.press(KeyCode::Char('p').into());
    model.lose("no daemon listens on /run/flowd/flowd.sock".to_owned());
    assert_is("lost-80x10", &picture(&mut model, (80, 10)));
    assert_is("lost-40x5", &picture(&mut model, (40, 5)));
    assert_is("nothing-yet-80x10", &picture(&mut Model::default(), (80, 10)));
}

#[test]
fn what_may_be_lost_is_said_on_screens_of_every_size() {
    let mut model = model(&FLOWS, 5);
    model.head.losses = vec!["wg0: 3 packets too short".to_owned()];
    for size in [(80, 24), (80, 9), (80, 8), (40, 6)] {
        let picture = picture(&mut model, size);
        assert!(picture.contains("! wg0: 3 packets too short"), "{size:?}\n{picture}");
    }
    // Where there is room for one line, that says what the rows are, and has a mark.
    assert!(picture(&mut model, (40, 5)).starts_with("! [FLOWS] peers"));
    model.head.losses.clear();
    assert!(picture(&mut model, (40, 5)).starts_with("[FLOWS] peers"));
}

#[test]
fn details_are_those_of_flowctl_flow_and_scroll_to_their_end() {
    let mut model = model(&FLOWS, 5);
    model.press(KeyCode::Enter.into());
    let waiting = picture(&mut model, (80, 10));
    assert!(waiting.contains("Asking the daemon."), "{waiting}");
    model.take_flow(sample::flow_id(443), Ok(sample::detail(FLOWS[0])));
    assert_is("details-80x40", &picture(&mut model, (80, 40)));
    model.press(KeyCode::PageDown.into());
    for _ in 0..50 {
        model.press(KeyCode::Down.into());
    }
    assert_is("details-40x10", &picture(&mut model, (40, 10)));
    model.press(KeyCode::Char('?').into());
    assert_is("help-80x24", &picture(&mut model, (80, 24)));
}

#[test]
fn without_colours_nothing_is_coloured_and_with_them_no_word_is_missing() {
    let mut model = model(&FLOWS, 5);
    let mut painted = |has_color| {
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let style = Style { has_color, ..Style::sample() };
        terminal.draw(|frame| paint(frame, &mut model, &style)).unwrap();
        terminal.backend().buffer().clone()
    };
    let (plain, coloured) = (painted(false), painted(true));
    let is_coloured = |cell: &ratatui::buffer::Cell| cell.fg != ratatui::style::Color::Reset;
    assert!(!plain.content.iter().any(is_coloured));
    assert!(coloured.content.iter().any(is_coloured), "what is denied");
    let symbols = |buffer: &ratatui::buffer::Buffer| -> String {
        buffer.content.iter().map(ratatui::buffer::Cell::symbol).collect()
    };
    assert_eq!(symbols(&plain), symbols(&coloured));
}
