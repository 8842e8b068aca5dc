//! A table of mistakes: what is typed, how it ends, and which words the sentence must have.

use std::process::{Command, Output};

use crate::programs::{finished, said};

/// What no person should have to read.
const UGLY: [&str; 17] = [
    "Some(",
    "None",
    "Ok(",
    "Err(",
    "Error {",
    "panicked",
    "RUST_BACKTRACE",
    "os error",
    "Generic error",
    "Overflow",
    "usize",
    "Querier",
    "unknown request",
    "Caused by",
    "\u{1b}",
    "kind:",
    "Error parsing into type",
];

/// One mistake.
pub(crate) struct Mistake {
    pub(crate) command: Command,
    pub(crate) says: Vec<String>,
    pub(crate) code: i32,
}

/// A refusal: exit code 1, one sentence.
pub(crate) fn refused(command: Command, says: &[&str]) -> Mistake {
    Mistake {
        command,
        says: says.iter().map(|words| (*words).to_owned()).collect(),
        code: 1,
    }
}

/// Wrong usage: exit code 2, and a hint at the help.
pub(crate) fn misused(command: Command, says: &[&str]) -> Mistake {
    Mistake {
        code: 2,
        ..refused(command, says)
    }
}

/// Makes all mistakes and tells all that were answered badly at once.
pub(crate) fn check(mistakes: Vec<Mistake>) {
    let complaints: Vec<String> = mistakes.into_iter().filter_map(complaint).collect();
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

fn complaint(mistake: Mistake) -> Option<String> {
    let Mistake { command, says, code } = mistake;
    let typed: Vec<String> = command
        .get_args()
        .skip(2)
        .map(|arg| arg.to_string_lossy().chars().take(60).collect())
        .collect();
    let output = finished(command);
    let faults = faults(&output, &says, code);
    if faults.is_empty() {
        return None;
    }
    Some(format!(
        "fxn {}\n    {}\n    exit {:?}, stdout {:?}, stderr {:?}",
        typed.join(" "),
        faults.join("; "),
        output.status.code(),
        said(&output.stdout).chars().take(200).collect::<String>(),
        said(&output.stderr).chars().take(600).collect::<String>()
    ))
}

/// What is wrong with an answer to a mistake.
pub(crate) fn faults(output: &Output, says: &[String], code: i32) -> Vec<String> {
    let mut faults = vec![];
    let text = said(&output.stderr);
    if output.status.code() != Some(code) {
        faults.push(format!("the exit code is not {code}"));
    }
    if !output.stdout.is_empty() {
        faults.push("stdout is not empty".to_owned());
    }
    if code == 1 && (text.lines().count() != 1 || !text.starts_with("fxn: ")) {
        faults.push("stderr is not one sentence".to_owned());
    }
    if code == 2 && !text.starts_with("error: ") {
        faults.push("this is no usage error".to_owned());
    }
    faults.extend(
        says.iter()
            .filter(|words| !text.contains(words.as_str()))
            .map(|words| format!("it does not say {words:?}")),
    );
    faults.extend(
        UGLY.iter()
            .filter(|ugly| text.contains(**ugly))
            .map(|ugly| format!("it says {ugly:?}")),
    );
    faults
}

#[test]
fn an_ugly_answer_is_noticed() {
    let output = |stderr: &str| Output {
        stdout: vec![],
        stderr: stderr.as_bytes().to_vec(),
        status: std::os::unix::process::ExitStatusExt::from_raw(1 << 8),
    };
    let says = ["job 7".to_owned()];
    assert!(faults(&output("fxn: there is no job 7\n"), &says, 1).is_empty());
    for bad in [
        "fxn: there is no job 8\n",
        "there is no job 7\n",
        "fxn: there is no job 7\nand more\n",
        "fxn: there is no Some(job 7)\n",
        "",
    ] {
        assert!(!faults(&output(bad), &says, 1).is_empty(), "{bad}");
    }
}
