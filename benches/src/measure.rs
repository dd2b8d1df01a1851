//! Measuring: one child with its time and peak memory, several contenders in alternating rounds, medians.

use anyhow::{Context, Result, bail};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What one run cost.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// The largest resident memory of the process or of any that it waited for.
    pub peak_bytes: u64,
}

/// Runs a command to its end, its output thrown away.
pub fn cost(command: &mut Command) -> Result<Cost> {
    let name = command.get_program().to_string_lossy().into_owned();
    let start = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start `{name}`"))?;
    let (status, usage) = wait(&child)?;
    let wall = start.elapsed();
    if !status.success() {
        bail!("`{name}` failed: {status}");
    }
    Ok(Cost { wall, peak_bytes: usage.ru_maxrss as u64 * 1024 })
}

/// `wait4`: the standard library waits without asking what the child used.
fn wait(child: &Child) -> Result<(ExitStatus, libc::rusage)> {
    let mut status = 0;
    // SAFETY: a `rusage` is plain numbers, valid as zeros.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: waits for our own child, into two valid places.
        let pid = unsafe { libc::wait4(child.id() as i32, &mut status, 0, &mut usage) };
        if pid == child.id() as i32 {
            return Ok((ExitStatus::from_raw(status), usage));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("cannot wait for a child");
        }
    }
}

/// The middle of some numbers.
///
/// # Panics
/// If there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// How many times as much as a baseline: the middle of the ratios within each round, whose runs were next to each other.
pub fn ratio(values: &[f64], baseline: &[f64]) -> f64 {
    let ratios: Vec<f64> = values.iter().zip(baseline).map(|(value, base)| value / base).collect();
    median(&ratios)
}

/// Measures several things in alternating rounds, so that a machine that slows down slows all of them down. One series
/// of values a thing.
pub fn rounds<T: Copy>(
    rounds: usize,
    things: &[T],
    mut one: impl FnMut(T) -> Result<f64>,
) -> Result<Vec<Vec<f64>>> {
    let mut values = vec![Vec::with_capacity(rounds); things.len()];
    for round in 0..rounds {
        for at in 0..things.len() {
            // Every other round in the other order: nobody always follows the same neighbour.
            let at = if round % 2 == 0 { at } else { things.len() - 1 - at };
            values[at].push(one(things[at])?);
        }
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_no_outlier_moves_it() {
        assert_eq!(median(&[3.0, 1.0, 1e9]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 1e9]), 3.0);
    }

    #[test]
    fn a_ratio_is_taken_within_each_round() {
        // The machine became ten times slower half way.
        assert_eq!(ratio(&[1.1, 1.2, 11.0, 10.0, 12.0], &[1.0, 1.0, 10.0, 10.0, 10.0]), 1.1);
    }

    #[test]
    fn rounds_alternate() {
        let mut order = Vec::new();
        let values = rounds(2, &['a', 'b'], |thing| {
            order.push(thing);
            Ok(f64::from(order.len() as u32))
        })
        .expect("nothing fails");
        assert_eq!(order, ['a', 'b', 'b', 'a']);
        assert_eq!(values, [[1.0, 4.0], [2.0, 3.0]]);
    }

    #[test]
    fn a_child_that_fails_is_no_measurement() {
        assert!(cost(&mut Command::new("false")).is_err());
        assert!(cost(&mut Command::new("true")).expect("true succeeds").peak_bytes > 0);
    }
}
