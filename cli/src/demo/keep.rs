//! Leaving the demonstration running: what other commands need lies in HOME, unless something of somebody lies there already.

use std::{fmt::Write as _, path::PathBuf};

use super::{folder::Folder, processes::Told, story::Played};
use crate::{context::Context, home, keys::seal};

const KEY: &str = "developer";

#[derive(Debug)]
pub(crate) struct Kept {
    /// Flags that other commands need.
    flags: String,
    model: String,
    network: PathBuf,
}

impl Kept {
    /// Puts `network.json` and the developer's key into HOME if there is neither a network nor a key.
    pub(crate) fn lay_out(context: &Context, folder: &Folder, played: &Played) -> anyhow::Result<Self> {
        let developer_home = folder.path().join(KEY);
        let mut kept = Self {
            flags: format!(" --home {}", developer_home.display()),
            model: played.model.to_string(),
            network: developer_home.join("network.json"),
        };
        let network = context.home.join("network.json");
        let free = !network.exists() && context.keys().names()?.is_empty();
        if !free {
            return Ok(kept);
        }
        home::create_private(&context.home)?;
        played.network.save(&network)?;
        seal(&context.home, &KEY.parse()?, &played.developer)?;
        let keys = context.home.join("keys");
        folder.remember([
            network.clone(),
            keys.join(format!("{KEY}.json")),
            keys.join(format!("{KEY}.passphrase")),
        ])?;
        kept.flags = match context.is_usual_home() {
            true => String::new(),
            false => format!(" --home {}", context.home.display()),
        };
        kept.network = network;
        Ok(kept)
    }

    /// What a person needs to know.
    pub(crate) fn told(&self, processes: &[Told]) -> String {
        let mut text = format!(
            "The network is running; Ctrl-C stops it. Its network file is {}.\n",
            self.network.display()
        );
        for process in processes.iter().filter(|process| !process.killed) {
            let urls: Vec<_> = process
                .ports
                .iter()
                .map(|port| format!("http://127.0.0.1:{port}"))
                .collect();
            // Writing to a text cannot fail.
            let _ = writeln!(
                text,
                "  {:<18} pid {:<8} {}",
                process.role,
                process.pid,
                urls.join("  ")
            );
        }
        let Self { flags, model, .. } = self;
        let _ = writeln!(text, "In a second terminal:\n  echo 'a first sentence' | fxn embed{flags} --model {model} -\n  fxn job list{flags}");
        text
    }
}
