//! Traffic that goes on while something happens to flowd.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use super::{Load, udp::Pair};

/// Datagrams of these sizes there and back, on one pair after the other.
const PAYLOADS: [usize; 3] = [0, 100, 1300];

/// Pairs that exchange until they are told to stop.
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Vec<(Pair, Load)>>>,
}

impl Steady {
    /// Starts; returns when every pair has exchanged something.
    pub fn begin(pairs: Vec<Pair>) -> Self {
        let mut pairs: Vec<(Pair, Load)> = pairs
            .into_iter()
            .map(|pair| {
                let load = pair.exchange(&PAYLOADS);
                (pair, load)
            })
            .collect();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for (pair, load) in &mut pairs {
                    *load = *load + pair.exchange(&PAYLOADS);
                }
            }
            pairs
        });
        Self { stop, thread: Some(thread) }
    }

    /// Stops; what each pair sent each way.
    pub fn end(mut self) -> Vec<(Pair, Load)> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it ends once");
        thread.join().expect("every datagram arrives")
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
