//! Steps that follow each other on one machine, told as libtest tells of tests.

use std::any::Any;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::gateway::Gateway;
use crate::operator;

/// A name, and what is done.
pub(crate) type Step = (&'static str, fn(&mut Gateway));

/// Functions by their paths, with their names.
macro_rules! steps {
    ($($step:path),* $(,)?) => { &[$((stringify!($step), $step as fn(&mut Gateway))),*] };
}
pub(crate) use steps;

/// How the steps of a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Well,
    /// One failed, but for the first.
    Badly,
    /// The first one failed, on which all others stand: they were not tried.
    AtOnce,
}

/// Does the steps, also behind one that failed, unless it is the first.
pub(crate) fn tell(steps: &[Step], gateway: &mut Gateway) -> End {
    let place = Arc::new(Mutex::new(String::new()));
    let noted = place.clone();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = location;
    }));
    println!("\nrunning {} tests", steps.len());
    let begun = Instant::now();
    let mut failures = Vec::new();
    let mut seconds = Vec::new();
    let mut end = End::Well;
    for (index, (name, step)) in steps.iter().enumerate() {
        let started = Instant::now();
        let done = panic::catch_unwind(AssertUnwindSafe(|| step(gateway)));
        println!("test {name} ... {}", if done.is_ok() { "ok" } else { "FAILED" });
        seconds.push(format!("{} {}", name, started.elapsed().as_secs()));
        if let Err(panic) = done {
            let place = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let said = format!("thread '{name}' panicked at {place}:\n{}", message(&*panic));
            failures.push((name, said, operator::journal(&["-n", "40"])));
            end = End::Badly;
            if index == 0 {
                end = End::AtOnce;
                break;
            }
        }
    }
    if !failures.is_empty() {
        println!("\nfailures:\n");
        for (name, said, journal) in &failures {
            println!("---- {name} stdout ----\n{said}\njournal of flowd:\n{journal}\n");
        }
        println!("failures:");
        failures.iter().for_each(|(name, ..)| println!("    {name}"));
    }
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    let (passed, failed) = (seconds.len() - failures.len(), failures.len());
    println!("seconds: {}", seconds.join(", "));
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s\n",
        begun.elapsed().as_secs_f64()
    );
    end
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message")
}
