//! The state of the full-screen view, pure: what keys and answers make of it.
//!
//! - rows come from the daemon, sorted and limited; here they are filtered by the text and sorted
//!   again, so that a key shows at once what the next look will say of all flows
//! - the selection keeps to its flow; when that has gone, to its place
//! - what a key changes in the question is asked at once

use std::time::Duration;

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{
    SHORT,
    details::Details,
    head::Head,
    rows::{Row, RowKey, Sorted as _},
};
use crate::{
    flows::{FlowId, Order, RateSort, Verdict},
    wire::{self, FlowRate, PeerRate},
};

/// Flows and peers that are asked for.
pub(super) const LIMIT: usize = 500;
/// The same while a text looks for some.
pub(super) const SEARCHED: usize = 5_000;

/// Which rows are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tab {
    /// Open flows.
    Flows,
    /// Their peers.
    Peers,
}

/// A peer whose flows alone are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OnlyPeer {
    pub(super) public_key: String,
    pub(super) name: String,
}

/// What a key asks of whoever runs the view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing but to show the state.
    Show,
    /// To ask the daemon at once.
    Ask,
    /// To paint everything anew.
    Repaint,
    /// To stop until the shell goes on.
    Suspend,
    /// To end.
    Quit,
}

/// Sums of everything that matches, also of what is not listed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sums {
    pub(super) open_flows: u64,
    pub(super) denied_flows: u64,
    pub(super) peers: u64,
    pub(super) listed_flows: usize,
    pub(super) listed_peers: usize,
    /// Between the last two looks.
    pub(super) moved_bytes: u64,
}

/// Everything that is on the screen.
#[derive(Clone, Debug)]
pub(super) struct Model {
    pub(super) tab: Tab,
    pub(super) flows: Vec<Row<FlowRate>>,
    pub(super) peers: Vec<Row<PeerRate>>,
    /// Of the tab's rows those that the text finds.
    pub(super) shown: Vec<usize>,
    /// A place in them.
    pub(super) cursor: usize,
    /// The first of them on the screen.
    pub(super) offset: usize,
    /// How many fit.
    page: usize,
    pub(super) selected: Option<RowKey>,
    pub(super) sort: RateSort,
    pub(super) order: Order,
    /// What rows are looked for with.
    pub(super) text: String,
    /// Whether keys go into the text.
    pub(super) is_typing: bool,
    pub(super) only_peer: Option<OnlyPeer>,
    pub(super) only_denied: bool,
    pub(super) is_paused: bool,
    pub(super) has_help: bool,
    pub(super) details: Option<Details>,
    pub(super) head: Head,
    pub(super) sums: Sums,
    /// Milliseconds between the last two looks.
    pub(super) interval_ms: Option<u64>,
    /// Why nothing new comes, in one line.
    pub(super) trouble: Option<String>,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            tab: Tab::Flows,
            flows: Vec::new(),
            peers: Vec::new(),
            shown: Vec::new(),
            cursor: 0,
            offset: 0,
            page: 1,
            selected: None,
            sort: RateSort::Rate,
            order: Order::Descending,
            text: String::new(),
            is_typing: false,
            only_peer: None,
            only_denied: false,
            is_paused: false,
            has_help: false,
            details: None,
            head: Head::default(),
            sums: Sums::default(),
            interval_ms: None,
            trouble: None,
        }
    }
}

impl Model {
    /// Takes an answer of the daemon, unless what is shown is to stay.
    pub(super) fn take(&mut self, status: &wire::Status, rates: wire::Rates) {
        if self.is_paused {
            return;
        }
        self.trouble = None;
        let is_short = |ms| Duration::from_millis(ms) < SHORT;
        if rates.interval_ms.is_some_and(is_short) && !self.flows.is_empty() {
            return;
        }
        self.head.take(status);
        self.interval_ms = rates.interval_ms;
        let interval_ms = rates.interval_ms;
        self.sums = Sums {
            open_flows: rates.open_flows,
            denied_flows: rates.denied_flows,
            peers: rates.peer_count,
            listed_flows: rates.flows.iter().filter(|flow| !flow.record.overflow).count(),
            listed_peers: rates.peers.len(),
            moved_bytes: rates.moved.bytes(),
        };
        let flow = |flow| Row::<FlowRate>::flow(flow, interval_ms);
        let peer = |peer| Row::<PeerRate>::peer(peer, interval_ms);
        self.flows = rates.flows.into_iter().map(flow).collect();
        self.peers = rates.peers.into_iter().map(peer).collect();
        if let Some(details) = &mut self.details {
            let key = RowKey::Flow(details.flow_id);
            details.moved(self.flows.iter().find(|row| row.key == key).and_then(|row| row.rate));
        }
        self.arrange();
    }

    /// Takes what the daemon says of a flow, or why it does not.
    pub(super) fn take_flow(&mut self, id: FlowId, told: Result<wire::FlowDetail, String>) {
        if let Some(details) = &mut self.details {
            details.take(id, told);
        }
    }

    /// Whether there is something to ask the daemon.
    pub(super) fn is_asking(&self) -> bool {
        !self.is_paused || self.details.as_ref().is_some_and(Details::is_untold)
    }

    /// Nothing new comes, and why.
    pub(super) fn lose(&mut self, trouble: String) {
        self.trouble = Some(trouble);
    }

    /// The flow whose details are asked for.
    pub(super) fn wanted_flow(&self) -> Option<FlowId> {
        self.details.as_ref().map(|details| details.flow_id)
    }

    /// How many flows and peers are asked for.
    pub(super) fn limit(&self) -> usize {
        if self.text.is_empty() { LIMIT } else { SEARCHED }
    }

    /// How many rows fit on the screen, which scrolls to the cursor.
    pub(super) fn fit(&mut self, page: usize) {
        self.page = page.max(1);
        let last = self.shown.len().saturating_sub(self.page);
        self.offset = self.offset.min(last).min(self.cursor);
        self.offset = self.offset.max((self.cursor + 1).saturating_sub(self.page));
    }

    /// What a key does.
    pub(super) fn press(&mut self, key: KeyEvent) -> Action {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Action::Quit,
            KeyCode::Char('z') if control => return Action::Suspend,
            KeyCode::Char('l') if control => return Action::Repaint,
            _ => {}
        }
        if self.has_help {
            self.has_help = false;
            return Action::Show;
        }
        if self.is_typing {
            return self.type_key(key.code, control);
        }
        if control {
            return Action::Show;
        }
        if key.modifiers.contains(KeyModifiers::ALT) {
            return self.press_behind_esc(key.code);
        }
        if let Some(details) = &mut self.details {
            match key.code {
                KeyCode::Char('q') => return Action::Quit,
                KeyCode::Esc | KeyCode::Enter | KeyCode::Left | KeyCode::Backspace => {
                    self.details = None;
                }
                KeyCode::Char('?') => self.has_help = true,
                KeyCode::Char('p') => return self.pause(),
                code => details.scroll(code, self.page),
            }
            return Action::Show;
        }
        self.press_in_list(key.code)
    }

    /// Esc and a key that arrive together look like one with Alt. That ends nothing: Alt may be
    /// meant.
    fn press_behind_esc(&mut self, code: KeyCode) -> Action {
        let before = match self.press(KeyCode::Esc.into()) {
            Action::Quit => return Action::Show,
            action => action,
        };
        match self.press(code.into()) {
            Action::Show => before,
            action => action,
        }
    }

    fn press_in_list(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') => return Action::Quit,
            KeyCode::Char('?') | KeyCode::F(1) => self.has_help = true,
            KeyCode::Char('/') => self.is_typing = true,
            KeyCode::Char('p' | ' ') => return self.pause(),
            KeyCode::Char('d') => {
                self.only_denied = !self.only_denied;
                self.arrange();
                return Action::Ask;
            }
            KeyCode::Char('s') => {
                self.sort = next(self.sort, self.tab);
                self.arrange();
                return Action::Ask;
            }
            KeyCode::Char('r') => {
                self.order = match self.order {
                    Order::Descending => Order::Ascending,
                    Order::Ascending => Order::Descending,
                };
                self.arrange();
                return Action::Ask;
            }
            KeyCode::Tab | KeyCode::BackTab => self.change_tab(),
            KeyCode::Enter => return self.open(),
            KeyCode::Esc => return self.step_back(),
            code => self.step(code),
        }
        Action::Show
    }

    fn type_key(&mut self, code: KeyCode, control: bool) -> Action {
        let had_text = !self.text.is_empty();
        match code {
            KeyCode::Char('u') if control => self.text.clear(),
            KeyCode::Char(character) if !control => self.text.push(character),
            KeyCode::Backspace => drop(self.text.pop()),
            KeyCode::Enter => self.is_typing = false,
            KeyCode::Esc => {
                self.text.clear();
                self.is_typing = false;
            }
            code => self.step(code),
        }
        self.arrange();
        // More flows are looked at as long as there is a text.
        if had_text == self.text.is_empty() { Action::Ask } else { Action::Show }
    }

    fn pause(&mut self) -> Action {
        self.is_paused = !self.is_paused;
        if self.is_paused { Action::Show } else { Action::Ask }
    }

    fn change_tab(&mut self) {
        self.tab = match self.tab {
            Tab::Flows => Tab::Peers,
            Tab::Peers => Tab::Flows,
        };
        (self.cursor, self.offset, self.selected) = (0, 0, None);
        self.arrange();
    }

    /// Details of a flow, or the flows of a peer.
    fn open(&mut self) -> Action {
        let Some(index) = self.shown.get(self.cursor) else { return Action::Show };
        match self.tab {
            Tab::Flows => {
                let row = &self.flows[*index];
                self.details = Some(Details::new(row.what.record.flow_id));
                self.selected = Some(row.key.clone());
            }
            Tab::Peers => {
                let Some(peer) = &self.peers[*index].what.peer else { return Action::Show };
                let (public_key, name) = (peer.public_key.clone(), peer.name.clone());
                self.only_peer = Some(OnlyPeer { public_key, name });
                self.text.clear();
                self.change_tab();
            }
        }
        Action::Ask
    }

    /// Takes back what narrows the list, one after the other; then there is nothing but to end.
    fn step_back(&mut self) -> Action {
        if !self.text.is_empty() {
            self.text.clear();
        } else if self.only_peer.take().is_some() {
            self.change_tab();
        } else if self.only_denied {
            self.only_denied = false;
        } else if self.selected.take().is_some() {
            (self.cursor, self.offset) = (0, 0);
            return Action::Show;
        } else {
            return Action::Quit;
        }
        self.arrange();
        Action::Ask
    }

    fn step(&mut self, code: KeyCode) {
        let last = self.shown.len().saturating_sub(1);
        let is_first = self.selected.is_none();
        self.cursor = match code {
            // The first key selects what is first.
            KeyCode::Down | KeyCode::Char('j') if is_first => self.cursor,
            KeyCode::Down | KeyCode::Char('j') => self.cursor + 1,
            KeyCode::Up | KeyCode::Char('k') => self.cursor.saturating_sub(1),
            KeyCode::PageDown => self.cursor + self.page,
            KeyCode::PageUp => self.cursor.saturating_sub(self.page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => last,
            _ => return,
        }
        .min(last);
        self.selected = self.key_at(self.cursor);
    }

    fn key_at(&self, place: usize) -> Option<RowKey> {
        let index = *self.shown.get(place)?;
        Some(match self.tab {
            Tab::Flows => self.flows[index].key.clone(),
            Tab::Peers => self.peers[index].key.clone(),
        })
    }

    /// Sorts, filters, and finds the selection again.
    fn arrange(&mut self) {
        Row::sort(&mut self.flows, self.sort, self.order);
        Row::sort(&mut self.peers, self.sort, self.order);
        let text = self.text.to_lowercase();
        let found =
            |has: &dyn Fn(usize) -> bool, rows: usize| (0..rows).filter(|i| has(*i)).collect();
        self.shown = match self.tab {
            Tab::Flows => {
                let is_wanted = |row: &Row<FlowRate>| {
                    let record = &row.what.record;
                    let peer = record.peer.as_ref().map(|peer| &peer.public_key);
                    row.has(&text) && self.wants(peer, record.verdict == Verdict::Deny)
                };
                found(&|index| is_wanted(&self.flows[index]), self.flows.len())
            }
            Tab::Peers => {
                let is_wanted = |row: &Row<PeerRate>| {
                    let peer = row.what.peer.as_ref().map(|peer| &peer.public_key);
                    row.has(&text) && self.wants(peer, row.what.denied_flows > 0)
                };
                found(&|index| is_wanted(&self.peers[index]), self.peers.len())
            }
        };
        let last = self.shown.len().saturating_sub(1);
        let Some(selected) = &self.selected else {
            self.cursor = 0;
            return;
        };
        let place =
            (0..self.shown.len()).find(|place| self.key_at(*place).as_ref() == Some(selected));
        match place {
            Some(place) => self.cursor = place,
            None => {
                self.cursor = self.cursor.min(last);
                self.selected = self.key_at(self.cursor);
            }
        }
    }
}

impl Model {
    /// Whether a row is of what the keys have left; the daemon says so at the next look.
    fn wants(&self, peer: Option<&String>, is_denied: bool) -> bool {
        let is_peer = self.only_peer.as_ref().is_none_or(|only| peer == Some(&only.public_key));
        is_peer && (is_denied || !self.only_denied)
    }
}

/// What comes after, of what the tab has.
fn next(sort: RateSort, tab: Tab) -> RateSort {
    let all: &[RateSort] = match tab {
        Tab::Flows => &RateSort::ALL,
        Tab::Peers => &[RateSort::Rate, RateSort::Rx, RateSort::Tx, RateSort::Packets],
    };
    let place = all.iter().position(|known| *known == sort).map_or(0, |place| place + 1);
    all[place % all.len()]
}

#[cfg(test)]
#[path = "model_tests.rs"]
mod tests;
