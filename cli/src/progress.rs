//! What a person sees while waiting: a spinner on a terminal, plain lines anywhere else. Always on stderr.

use std::{
    io::{self, IsTerminal},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::refusal::note;

/// The steps of one command.
#[derive(Debug)]
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    /// Whether lines are told where there is no terminal.
    lines: bool,
    started: Instant,
    /// The newest job on chain; 0 where there is none.
    job: AtomicU64,
}

impl Progress {
    /// For a story that is worth a log.
    pub(crate) fn new() -> Self {
        Self::telling(true)
    }

    /// For a command, whose stderr holds its refusal and nothing else where nobody watches.
    pub(crate) fn for_people() -> Self {
        Self::telling(false)
    }

    fn telling(lines: bool) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {elapsed:>3} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self {
            spinner,
            lines,
            started: Instant::now(),
            job: AtomicU64::new(0),
        }
    }

    /// What is being done now.
    pub(crate) fn step(&self, message: &str) {
        match &self.spinner {
            Some(bar) => bar.set_message(message.to_owned()),
            None => self.line(message),
        }
    }

    /// Something worth keeping on the screen.
    pub(crate) fn done(&self, message: &str) {
        match &self.spinner {
            Some(bar) => bar.println(self.timed(message)),
            None => self.line(message),
        }
    }

    fn line(&self, message: &str) {
        if self.lines {
            note(self.timed(message));
        }
    }

    fn timed(&self, message: &str) -> String {
        format!("{:>5.1} s  {message}", self.started.elapsed().as_secs_f32())
    }

    /// A job that runs on chain whether we wait for it or not.
    pub(crate) fn at_work(&self, job: u64) {
        self.job.store(job, Ordering::Relaxed);
    }

    /// What leaving does not stop.
    pub(crate) fn goes_on(&self) -> String {
        match self.job.load(Ordering::Relaxed) {
            0 => "no job is known to be at work; `fxn job list` shows all".to_owned(),
            job => format!(
                "job {job} goes on; `fxn job watch {job}` follows it, `fxn job result {job}` fetches what it comes to"
            ),
        }
    }

    pub(crate) fn finish(&self) {
        if let Some(bar) = &self.spinner {
            bar.finish_and_clear();
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
    }
}
