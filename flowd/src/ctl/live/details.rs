//! One flow in detail, as `flowctl flow` tells it, while it goes on and after it has ended.

use std::collections::VecDeque;

use ratatui::crossterm::event::KeyCode;

use crate::{
    flows::{Counters, FlowId},
    wire::FlowDetail,
};

/// Looks that the sparkline remembers.
const HISTORY: usize = 240;

/// What is known of the flow.
#[derive(Clone, Debug)]
pub(super) struct Details {
    pub(super) flow_id: FlowId,
    /// `None`: the daemon has not said yet.
    pub(super) told: Option<FlowDetail>,
    /// Why it says nothing.
    pub(super) trouble: Option<String>,
    /// In a second; `None`: nobody knows, or it is not among those that are listed.
    pub(super) rate: Option<Counters>,
    /// Bytes a second since it was opened.
    pub(super) history: VecDeque<u64>,
    /// The first line on the screen.
    pub(super) line: usize,
}

impl Details {
    pub(super) fn new(flow_id: FlowId) -> Self {
        let history = VecDeque::new();
        Self { flow_id, told: None, trouble: None, rate: None, history, line: 0 }
    }

    /// Takes what the daemon says, or why it does not.
    pub(super) fn take(&mut self, flow_id: FlowId, told: Result<FlowDetail, String>) {
        if flow_id != self.flow_id {
            return;
        }
        match told {
            Ok(told) => (self.told, self.trouble) = (Some(told), None),
            Err(trouble) => self.trouble = Some(trouble),
        }
    }

    /// Whether nothing is known of it.
    pub(super) fn is_untold(&self) -> bool {
        self.told.is_none() && self.trouble.is_none()
    }

    /// Takes what it moves.
    pub(super) fn moved(&mut self, rate: Option<Counters>) {
        self.rate = rate;
        if self.history.len() == HISTORY {
            self.history.pop_front();
        }
        self.history.extend(rate.map(|rate| rate.bytes()));
    }

    /// Shows other lines. How many there are is known when they are painted.
    pub(super) fn scroll(&mut self, code: KeyCode, page: usize) {
        self.line = match code {
            KeyCode::Down | KeyCode::Char('j') => self.line + 1,
            KeyCode::Up | KeyCode::Char('k') => self.line.saturating_sub(1),
            KeyCode::PageDown => self.line + page,
            KeyCode::PageUp => self.line.saturating_sub(page),
            KeyCode::Home | KeyCode::Char('g') => 0,
            _ => return,
        };
    }
}
