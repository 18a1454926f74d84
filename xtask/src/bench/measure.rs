//! The pieces of work, and how they are timed.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::engines::{Engine, IMAGE};
use super::table::Medians;

const BURST: usize = 50;
const CLIENTS: usize = 8;
/// Before another engine's turn the host gets time to finish what the last one left
/// behind: an engine's clean-up goes on after its client has returned.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs of one engine in a row before the next one has its turn.
const ROW: usize = 4;

/// What a user sees who types one command, and what a script sees that runs many.
pub(crate) struct Paces {
    /// The first of a row: the host was idle before.
    pub(crate) idle: Medians,
    /// The others of a row.
    pub(crate) busy: Medians,
}

/// A container on the default bridge from nothing to gone, with its client.
pub(crate) fn run(engines: &[Engine], runs: usize) -> anyhow::Result<Paces> {
    interleave(engines, runs, |engine| engine.call(&["run", "--rm", IMAGE, "true"]).map(drop))
}

/// A program in a container that runs already.
pub(crate) fn exec(engines: &[Engine], runs: usize) -> anyhow::Result<Paces> {
    for engine in engines {
        engine.call(&["run", "-d", "--name", "exec", IMAGE, "sleep", "100000"])?;
    }
    let paces =
        interleave(engines, runs, |engine| engine.call(&["exec", "exec", "true"]).map(drop));
    for engine in engines {
        engine.remove(&["exec".to_owned()])?;
    }
    paces
}

/// Many containers, started by clients side by side. Removing them isn't timed.
pub(crate) fn burst(engines: &[Engine], runs: usize) -> anyhow::Result<Medians> {
    let names: Vec<String> = (0..BURST).map(|number| format!("burst{number}")).collect();
    let mut times = vec![Vec::new(); engines.len()];
    for round in 0..=runs {
        for (engine, times) in engines.iter().zip(&mut times) {
            settle();
            let took = timed(|| start_all(engine, &names))?;
            if round > 0 {
                times.push(took);
            }
            engine.remove(&names)?;
        }
    }
    Ok(medians(engines, times))
}

fn start_all(engine: &Engine, names: &[String]) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let client = || -> anyhow::Result<()> {
        while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
            engine.call(&["run", "-d", "--name", name, IMAGE, "sleep", "100000"])?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(client)).collect();
        clients.into_iter().try_for_each(|client| match client.join() {
            Ok(outcome) => outcome,
            Err(_) => anyhow::bail!("a client panicked"),
        })
    })
}

/// Times `work` on each engine in turn, `runs` rows after one that doesn't count.
fn interleave(
    engines: &[Engine],
    runs: usize,
    work: impl Fn(&Engine) -> anyhow::Result<()>,
) -> anyhow::Result<Paces> {
    let mut idle = vec![Vec::new(); engines.len()];
    let mut busy = vec![Vec::new(); engines.len()];
    for round in 0..=runs {
        for (number, engine) in engines.iter().enumerate() {
            settle();
            let row: Vec<f64> =
                (0..ROW).map(|_| timed(|| work(engine))).collect::<anyhow::Result<_>>()?;
            if round > 0 {
                idle[number].push(row[0]);
                busy[number].extend(&row[1..]);
            }
        }
    }
    Ok(Paces { idle: medians(engines, idle), busy: medians(engines, busy) })
}

pub(crate) fn settle() {
    thread::sleep(SETTLE);
}

/// Seconds that `work` takes.
pub(crate) fn timed(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let began = Instant::now();
    work()?;
    Ok(began.elapsed().as_secs_f64())
}

fn medians(engines: &[Engine], times: Vec<Vec<f64>>) -> Medians {
    engines.iter().zip(times).map(|(engine, times)| (engine.name, median(times))).collect()
}

/// The middle value, or the mean of the two; 0 of none.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => 0.0,
        length if length % 2 == 1 => values[middle],
        _ => (values[middle - 1] + values[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(Vec::new()), 0.0);
    }
}
