//! How far a command is, on stderr: a bar on a terminal, a line now and then in a pipe or a log, nothing if asked.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// The time between two lines where there is no terminal.
const PAUSE: Duration = Duration::from_secs(10);

/// The progress of one piece of work. Gone from the terminal when it is dropped.
pub struct Progress {
    shown: Shown,
    what: &'static str,
    unit: &'static str,
}

enum Shown {
    Nothing,
    Bar(ProgressBar),
    Lines { started: Instant, last: Instant },
}

impl Progress {
    pub fn none() -> Self {
        Self { shown: Shown::Nothing, what: "", unit: "" }
    }

    /// A bar of `total` units; one without an end if that is not known.
    pub fn bar(what: &'static str, unit: &'static str, total: Option<u64>) -> Self {
        let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
        let template = match total {
            Some(_) => "{msg} {wide_bar} {human_pos}/{human_len} {prefix}, {per_sec}, {eta} left",
            None => "{msg} {spinner} {human_pos} {prefix}, {per_sec}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        bar.set_prefix(unit);
        Self { shown: Shown::Bar(bar), what, unit }
    }

    /// Lines that say the same.
    pub fn lines(what: &'static str, unit: &'static str) -> Self {
        let now = Instant::now();
        Self { shown: Shown::Lines { started: now, last: now }, what, unit }
    }

    /// Says that so much is done; `total` may become known, or change, on the way.
    pub fn set(&mut self, done: u64, total: Option<u64>) {
        match &mut self.shown {
            Shown::Nothing => {}
            Shown::Bar(bar) => {
                if let Some(total) = total {
                    bar.set_length(total);
                }
                bar.set_position(done);
            }
            Shown::Lines { started, last } => {
                if last.elapsed() < PAUSE {
                    return;
                }
                *last = Instant::now();
                let rate = done as f64 / started.elapsed().as_secs_f64();
                let of = total.map_or(String::new(), |total| format!(" of {total}"));
                anstream::eprintln!("{}: {done}{of} {}, {rate:.0}/s", self.what, self.unit);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }
}
