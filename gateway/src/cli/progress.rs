//! How far long work has got: a bar on standard error, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// A bar, or nothing.
pub(super) struct Progress(ProgressBar);

impl Progress {
    /// For so many steps; none: nothing is shown.
    pub(super) fn new(total: Option<u64>) -> Self {
        let Some(total) = total else { return Self(ProgressBar::hidden()) };
        // Shows itself on a terminal only.
        let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
        let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {per_sec} {eta}");
        // The template is a constant; the bar has a look of its own besides.
        Self(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
    }

    /// One step more.
    pub(super) fn advance(&self) {
        self.0.inc(1);
    }

    /// Takes it off the screen.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
