//! Where figures were measured, and the place of a section in the document.

use std::path::Path;

use fxn_tests::program::binary;
use serde::Serialize;

/// Figures of two runs are compared only where these are the same.
#[derive(Debug, Serialize)]
pub(crate) struct Circumstances {
    pub(crate) date: String,
    pub(crate) cores: usize,
    /// How `fxn` was built: `release` or `debug`.
    pub(crate) build: String,
    /// Of this program and all that it starts: below 0, it goes before others on the machine.
    pub(crate) nice: i64,
}

impl Circumstances {
    pub(crate) fn here(date: &str) -> Self {
        let folder = binary().parent().and_then(Path::file_name).map(|name| name.to_owned());
        Self {
            date: date.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            build: folder.map_or_else(|| "unknown".into(), |name| name.to_string_lossy().into_owned()),
            nice: nice().unwrap_or_default(),
        }
    }

    /// The same in words.
    pub(crate) fn told(&self, command: &str) -> String {
        let Self {
            date,
            cores,
            build,
            nice,
        } = self;
        let before_others = match nice {
            0.. => String::new(),
            _ => format!(", before other programs of the machine (nice {nice})"),
        };
        format!("{date}, {cores} cores that everything shares{before_others}, a {build} build of `fxn`: `{command}`.")
    }
}

/// The 19th word about this process.
fn nice() -> Option<i64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(16)?.parse().ok()
}

/// The document with this text as its section, which is made anew at the end where it is not there.
pub(crate) fn replace(document: &str, heading: &str, text: &str) -> String {
    let title = format!("\n## {heading}\n");
    let section = format!("{title}\n{}\n", text.trim_end());
    let Some((before, rest)) = document.split_once(&title) else {
        return format!("{}\n{section}", document.trim_end());
    };
    let after = rest.find("\n## ").map_or("", |at| &rest[at..]);
    format!("{before}{section}{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_is_put_in_the_place_of_the_old_one_and_nothing_else_changes() {
        let document = "# Title\n\n## One\n\nold\n\n### Part\n\nold too\n\n## Two\n\nkept\n";
        let once = replace(document, "One", "new\n");
        assert_eq!(once, "# Title\n\n## One\n\nnew\n\n## Two\n\nkept\n");
        assert_eq!(replace(&once, "One", "new\n"), once);
        assert_eq!(replace(document, "Two", "new"), document.replace("kept", "new"));
    }

    #[test]
    fn a_section_that_is_not_there_comes_last() {
        assert_eq!(
            replace("# Title\n\ntext\n", "One", "new"),
            "# Title\n\ntext\n\n## One\n\nnew\n"
        );
    }
}
