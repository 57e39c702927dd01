//! `flowctl top --live`: peers and flows by their current rate, on the whole screen.
//!
//! - `model` is the state and what keys do to it, `view` its picture: both are pure
//! - `feed` asks the daemon, `terminal` takes the terminal and gives it back; they meet here

mod columns;
mod details;
mod feed;
mod head;
mod list;
mod model;
mod panels;
mod rows;
#[cfg(test)]
mod sample;
mod terminal;
mod view;

use std::{
    io::{self, IsTerminal as _},
    pin::Pin,
    thread,
    time::{Duration, Instant},
};

use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    time::sleep_until,
};

use self::{
    feed::{Answer, Question},
    model::{Action, Model},
    terminal::Full,
    view::Style,
};
use super::{
    client::Client,
    error::CtlError,
    filters::Parameters,
    lists::Top,
    output::{Format, Screen},
};

/// A look that takes long is not followed by another one before it has paid for itself: the daemon
/// works on it a quarter of the time at most.
const REST: u32 = 3;
/// After the first look.
const SOON: Duration = Duration::from_millis(500);
/// What moves in so short a time is not told: it may be one packet, or none.
const SHORT: Duration = Duration::from_millis(200);
/// How long the view has for its end.
const STALLED: Duration = Duration::from_secs(1);
/// How long an answer may take before the screen says so.
const LATE: Duration = Duration::from_secs(3);

/// Shows what goes on until a key or a signal ends it.
pub(super) async fn run(
    client: &Client<'_>,
    screen: &Screen,
    format: Format,
    top: &Top,
) -> Result<(), CtlError> {
    if format != Format::Table {
        return Err(CtlError::Usage("`--live` is a picture; leave out `--output`".to_owned()));
    }
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        return Err(CtlError::Usage(
            "`--live` needs a terminal to read from and to write to; leave it out in a pipe"
                .to_owned(),
        ));
    }
    let mut live = Live {
        client: *client,
        filters: top.filters.pairs(&screen.clock)?,
        interval: Duration::from_secs(top.interval),
        model: Model::default(),
        style: Style { clock: screen.clock.clone(), has_color: screen.color },
        next_look: Instant::now(),
        asking: None,
    };
    let signals = Signals::new().map_err(CtlError::Runtime)?;
    see_to_the_end().map_err(CtlError::Runtime)?;
    let mut full = Full::enter()?;
    live.run(&mut full, signals, keys()).await
}

/// Signals that end it, and the one that says that a shell goes on with us.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
    go_on: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hang_up: signal(SignalKind::hangup())?,
            go_on: signal(SignalKind::from_raw(libc::SIGCONT))?,
        })
    }

    /// Until one asks for an end.
    async fn end(interrupt: &mut Signal, terminate: &mut Signal, hang_up: &mut Signal) {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    }
}

/// A terminal that takes no output holds the view up in the midst of a picture. Signals end it then,
/// too, after a while.
fn see_to_the_end() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("end".to_owned()).spawn(move || {
        let stalled = runtime.block_on(async {
            let Signals { mut interrupt, mut terminate, mut hang_up, go_on: _ } = Signals::new()?;
            Signals::end(&mut interrupt, &mut terminate, &mut hang_up).await;
            tokio::time::sleep(STALLED).await;
            Ok::<_, io::Error>(())
        });
        if stalled.is_ok() {
            terminal::give_up();
        }
    })?;
    Ok(())
}

/// Keys and new sizes, read by a thread of their own. It ends with the process, or the terminal.
fn keys() -> UnboundedReceiver<Event> {
    let (events, keys) = unbounded_channel();
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if events.send(event).is_err() {
                break;
            }
        }
    });
    keys
}

/// A look under way, and when it was begun.
struct Asking<'a> {
    since: Instant,
    answer: Pin<Box<dyn Future<Output = Result<Answer, CtlError>> + 'a>>,
}

struct Live<'a> {
    client: Client<'a>,
    filters: Parameters,
    interval: Duration,
    model: Model,
    style: Style,
    next_look: Instant,
    asking: Option<Asking<'a>>,
}

impl<'a> Live<'a> {
    async fn run(
        &mut self,
        full: &mut Full,
        signals: Signals,
        mut keys: UnboundedReceiver<Event>,
    ) -> Result<(), CtlError> {
        let Signals { mut interrupt, mut terminate, mut hang_up, mut go_on } = signals;
        loop {
            self.show(full)?;
            let wake = self.wake();
            tokio::select! {
                biased;
                () = Signals::end(&mut interrupt, &mut terminate, &mut hang_up) => return Ok(()),
                _ = go_on.recv() => full.take_again()?,
                event = keys.recv() => {
                    let Some(event) = event else { return Ok(()) };
                    // All that were typed meanwhile are shown at once.
                    let mut next = Some(event);
                    while let Some(event) = next {
                        if self.event(full, &event)? == Action::Quit {
                            return Ok(());
                        }
                        next = keys.try_recv().ok();
                    }
                }
                answer = answered(&mut self.asking) => self.take(answer),
                () = sleep_until(wake.into()) => self.look(),
            }
        }
    }

    fn show(&mut self, full: &mut Full) -> Result<(), CtlError> {
        let Self { model, style, .. } = self;
        style.clock.now = model.head.now;
        full.screen.draw(|frame| view::paint(frame, model, style))?;
        Ok(())
    }

    fn event(&mut self, full: &mut Full, event: &Event) -> Result<Action, CtlError> {
        let Event::Key(key) = event else { return Ok(Action::Show) };
        if key.kind == KeyEventKind::Release {
            return Ok(Action::Show);
        }
        let action = self.model.press(*key);
        match action {
            Action::Ask => {
                // What was asked before is no longer what is wanted.
                (self.asking, self.next_look) = (None, Instant::now());
            }
            Action::Repaint => full.repaint()?,
            Action::Suspend => full.suspend()?,
            Action::Show | Action::Quit => {}
        }
        Ok(action)
    }

    /// When something has to be done though nothing happens.
    fn wake(&self) -> Instant {
        match &self.asking {
            Some(asking) if asking.since.elapsed() < LATE => asking.since + LATE,
            // The screen says how late it is.
            Some(_) => Instant::now() + Duration::from_secs(1),
            None if !self.model.is_asking() => Instant::now() + Duration::from_secs(3_600),
            None => self.next_look,
        }
    }

    /// Takes a look, or says that the last one has no answer yet.
    fn look(&mut self) {
        if let Some(asking) = &self.asking {
            let late = asking.since.elapsed();
            if late >= LATE {
                let seconds = late.as_secs();
                self.model.lose(format!("the daemon has not answered for {seconds} s"));
            }
        } else if self.model.is_asking() {
            let question = Question::of(&self.model, &self.filters);
            let answer = Box::pin(question.ask(self.client));
            self.asking = Some(Asking { since: Instant::now(), answer });
        }
    }

    fn take(&mut self, (since, answer): (Instant, Result<Answer, CtlError>)) {
        let took = since.elapsed();
        let mut pause = self.interval.max(took * REST);
        match answer {
            Ok(Answer { status, rates, flow }) => {
                match rates.interval_ms.map(Duration::from_millis) {
                    // The first look has nothing to compare with.
                    None => pause = SOON,
                    // Too short to say anything: somebody else has just looked. Between two of
                    // their looks there is room for ours.
                    Some(interval) if interval < SHORT => pause = self.interval / 2,
                    Some(_) => {}
                }
                self.model.take(&status, rates);
                if let Some((flow_id, told)) = flow {
                    self.model.take_flow(flow_id, told);
                }
                #[cfg(feature = "failpoints")]
                crate::failpoint::panics("live");
            }
            Err(error) => self.model.lose(super::text::visible(&error.to_string())),
        }
        self.next_look = Instant::now() + pause;
    }
}

/// The answer to the look under way, which is over then; for ever, while there is none.
async fn answered(asking: &mut Option<Asking<'_>>) -> (Instant, Result<Answer, CtlError>) {
    let Some(Asking { since, answer }) = asking else { return std::future::pending().await };
    let told = (*since, answer.as_mut().await);
    *asking = None;
    told
}

#[cfg(test)]
mod view_tests;
