//! What a person sees while waiting: a spinner on a terminal, plain lines anywhere else. Always on stderr.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

/// The steps of one command.
#[derive(Debug)]
pub(crate) struct Progress {
    spinner: Option<ProgressBar>,
    started: Instant,
}

impl Progress {
    pub(crate) fn new() -> Self {
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
            started: Instant::now(),
        }
    }

    /// What is being done now.
    pub(crate) fn step(&self, message: &str) {
        match &self.spinner {
            Some(bar) => bar.set_message(message.to_owned()),
            None => eprintln!("{:>5.1} s  {message}", self.started.elapsed().as_secs_f32()),
        }
    }

    /// Something worth keeping on the screen.
    pub(crate) fn done(&self, message: &str) {
        let line = format!("{:>5.1} s  {message}", self.started.elapsed().as_secs_f32());
        match &self.spinner {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
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
