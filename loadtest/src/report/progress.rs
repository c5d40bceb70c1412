//! Progress on stderr, for a person who waits: nothing is shown if there is no terminal, or if it was asked for.

use std::{
    io::{self, IsTerminal as _},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressFinish, ProgressState, ProgressStyle};

/// Set once by `--quiet`. There is one stderr, so there is one switch.
static QUIET: AtomicBool = AtomicBool::new(false);
/// Cells of a bar.
const CELLS: usize = 40;
/// How often a bar is drawn: rarely, as it shares the processors with what is measured.
const REDRAW: Duration = Duration::from_millis(500);

/// Shows nothing from now on.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// The bar of one phase. It stays where it is if it is dropped before [`Progress::finish`].
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A phase of so many steps: `connecting [=====>    ] 4,500/15,000, 12s`.
    pub fn steps(phase: &'static str, steps: u64) -> Self {
        Self::start(phase, steps, |state, out| {
            let text = format!(
                "{} {}/{}",
                cells(state.fraction()),
                super::number::count(state.pos()),
                super::number::count(state.len().unwrap_or(0))
            );
            let _ = write!(out, "{text}, {}s", state.elapsed().as_secs());
        })
    }

    /// A phase of a known duration, which passes without further calls: `measuring [====>      ] 20/60 s`.
    pub fn time(phase: &'static str, duration: Duration) -> Self {
        Self::start(phase, duration.as_secs(), move |state, out| {
            let elapsed = state.elapsed().min(duration);
            let fraction =
                if duration.is_zero() { 1.0 } else { elapsed.as_secs_f32() / duration.as_secs_f32() };
            let _ = write!(out, "{} {}/{} s", cells(fraction), elapsed.as_secs(), duration.as_secs());
        })
    }

    fn start<F>(phase: &'static str, length: u64, draw: F) -> Self
    where
        F: Fn(&ProgressState, &mut dyn std::fmt::Write) + Send + Sync + Clone + 'static,
    {
        if !visible(QUIET.load(Ordering::Relaxed), io::stderr().is_terminal()) {
            return Self { bar: ProgressBar::hidden() };
        }
        // A literal without braces other than keys: it cannot fail to parse, and the default would do as well.
        let style =
            ProgressStyle::with_template("{msg:12} {drawn}").unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(length)
            .with_style(style.with_key("drawn", draw))
            .with_message(phase)
            .with_finish(ProgressFinish::Abandon);
        bar.enable_steady_tick(REDRAW);
        Self { bar }
    }

    /// So many steps are done by now. No effect on a phase of a known duration.
    pub fn set(&self, steps: u64) {
        self.bar.set_position(steps);
    }

    /// The phase is over. The bar stays on the screen.
    pub fn finish(self) {
        self.bar.finish();
    }
}

fn visible(quiet: bool, terminal: bool) -> bool {
    terminal && !quiet
}

/// `[=====>    ]`; a fraction outside of 0 to 1 counts as the nearer of them.
fn cells(fraction: f32) -> String {
    let full = (fraction.clamp(0.0, 1.0) * CELLS as f32) as usize;
    let head = if full < CELLS { ">" } else { "" };
    format!("[{}{head}{}]", "=".repeat(full), " ".repeat(CELLS - full - head.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_shown_to_those_who_can_and_want_to_see_it() {
        assert_eq!(
            [(false, true), (true, true), (false, false)].map(|(q, t)| visible(q, t)),
            [true, false, false]
        );
    }

    #[test]
    fn cells_fill_from_the_left_and_never_overflow() {
        for (fraction, full) in [(-1.0, 0), (0.0, 0), (0.5, 20), (1.0, 40), (7.0, 40), (f32::NAN, 0)] {
            let cells = cells(fraction);
            assert_eq!((cells.len(), cells.matches('=').count()), (CELLS + 2, full), "{fraction}");
        }
    }

    #[test]
    fn without_a_terminal_it_does_nothing() {
        be_quiet();
        let progress = Progress::steps("connecting", 3);
        progress.set(1);
        progress.set(3);
        assert!(progress.bar.is_hidden());
        progress.finish();
        Progress::time("measuring", Duration::ZERO).finish();
    }
}
