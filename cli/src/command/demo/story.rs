//! What a person sees while the demo runs: lines that stay, and one that moves. Silent with `--json`.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::print;

/// The teller. Lines go to stderr; stdout is for the result.
pub(super) struct Story {
    bar: ProgressBar,
    silent: bool,
}

impl Story {
    pub(super) fn new(silent: bool) -> Self {
        let target = if silent { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar, silent }
    }

    /// What happens now.
    pub(super) fn now(&self, text: impl Into<String>) {
        self.bar.set_message(text.into());
    }

    /// What has happened.
    pub(super) fn tell(&self, text: impl AsRef<str>) {
        if !self.silent {
            self.bar.suspend(|| print::tell(text.as_ref()));
        }
    }

    /// Takes the moving line away.
    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
