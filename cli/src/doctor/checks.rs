//! What the facts mean: pure functions from a fact to a finding, each failure with what mends it.

use std::{path::Path, time::Duration};

use inference_host::onnx::Device;
use serde::Serialize;

use super::facts::{Disk, Head, KeyFact, Limits, PortFact, Probed};

/// The API level that the program asks of ONNX Runtime: the minor number of its version.
const LIBRARY_MINOR_MIN: u64 = 22;
/// Block time is the time of the votes on the block before; on slow chains it is some seconds old.
const SKEW_SECONDS_WARN: u64 = 15;
/// Deadlines and signed requests are off by this much too.
const SKEW_SECONDS_FAIL: u64 = 30;
/// A node whose newest block is older stands still.
const BLOCK_AGE_MAX: Duration = Duration::from_secs(60);
const FREE_BYTES_FAIL: u64 = 200 << 20;
const FREE_BYTES_WARN: u64 = 5 << 30;
const FILES_FAIL: u64 = 256;
const FILES_WARN: u64 = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Ok,
    Warn,
    Fail,
}

/// One line of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) check: &'static str,
    pub(crate) status: Status,
    pub(crate) told: String,
    /// What mends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(check: &'static str, told: impl Into<String>) -> Self {
        Self {
            check,
            status: Status::Ok,
            told: told.into(),
            fix: None,
        }
    }

    pub(crate) fn warn(check: &'static str, told: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            status: Status::Warn,
            fix: Some(fix.into()),
            ..Self::ok(check, told)
        }
    }

    pub(crate) fn fail(check: &'static str, told: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            status: Status::Fail,
            ..Self::warn(check, told, fix)
        }
    }
}

/// `found` is the file, or why there is none; `probed` what a process of its own has seen of it.
pub(crate) fn library(found: &Result<String, String>, probed: &Probed) -> Finding {
    const CHECK: &str = "onnxruntime";
    const FIX: &str = "scripts/models.sh fetches one that works; --onnxruntime FILE or FXN_ONNXRUNTIME name another";
    let path = match found {
        Ok(path) => path,
        Err(reason) => return Finding::fail(CHECK, reason, FIX),
    };
    match probed {
        Probed::Class(class) => {
            let version = class.split('/').next().and_then(|name| name.strip_prefix("ort-"));
            let version = version.unwrap_or("of an unknown version");
            let mut numbers = version.split('.').map(str::parse::<u64>);
            match (numbers.next(), numbers.next()) {
                (Some(Ok(1)), Some(Ok(minor))) if minor < LIBRARY_MINOR_MIN => Finding::fail(
                    CHECK,
                    format!("{path} is version {version}, 1.{LIBRARY_MINOR_MIN} or newer is needed"),
                    FIX,
                ),
                _ => Finding::ok(
                    CHECK,
                    format!("{version} from {path} loads, API level {LIBRARY_MINOR_MIN}"),
                ),
            }
        }
        Probed::Refused(reason) => Finding::fail(CHECK, reason, FIX),
        Probed::Crashed(how) => Finding::fail(CHECK, format!("loading {path} ended the process: {how}"), FIX),
        Probed::Hung(seconds) => Finding::fail(CHECK, format!("{path} was not loaded within {seconds} s"), FIX),
        Probed::NotTried => Finding::fail(CHECK, format!("{path} could not be tried"), FIX),
    }
}

/// What decides the bits on this machine.
pub(crate) fn processor(instructions: &str, probed: &Probed) -> Finding {
    const CHECK: &str = "processor";
    let class = match probed {
        Probed::Class(class) => format!("engine class {class}"),
        _ => "no engine class without ONNX Runtime".to_owned(),
    };
    match instructions {
        "sse2" | "avx" => Finding::warn(
            CHECK,
            format!("{instructions} only; {class}"),
            "inference is several times faster where avx2 and fma exist; in a virtual machine pass the host's processor through",
        ),
        _ => Finding::ok(CHECK, format!("{instructions}; {class}")),
    }
}

/// Whether stages can run on a device of this machine.
pub(crate) fn device(device: Device, probed: &Probed) -> Finding {
    const CHECK: &str = "device";
    const FIX: &str = "needed are a driver of NVIDIA, the libraries of CUDA and cuDNN where LD_LIBRARY_PATH names them, and an ONNX Runtime \
                       that is built for CUDA: FXN_ONNXRUNTIME or --onnxruntime name its folder (the package onnxruntime-gpu has it)";
    match probed {
        Probed::Class(class) => Finding::ok(CHECK, format!("{device} computes; engine class {class}")),
        Probed::Refused(reason) => Finding::fail(CHECK, format!("{device}: {reason}"), FIX),
        Probed::Crashed(how) => Finding::fail(CHECK, format!("trying {device} ended the process: {how}"), FIX),
        Probed::Hung(seconds) => Finding::fail(CHECK, format!("{device} did not answer within {seconds} s"), FIX),
        Probed::NotTried => Finding::fail(CHECK, format!("{device} cannot be tried without ONNX Runtime"), FIX),
    }
}

/// Whether the node's chain is the one of the network file.
pub(crate) fn chain(rpc: &str, expected: Option<&str>, head: &Head) -> Finding {
    const CHECK: &str = "node";
    let Head {
        chain_id,
        height,
        catching_up,
        ..
    } = head;
    match expected {
        Some(expected) if expected != chain_id => Finding::fail(
            CHECK,
            format!("{rpc} is on chain {chain_id:?}, the network file says {expected:?}"),
            "give the network file of that chain with --network, or a node of this one with --node",
        ),
        _ if *catching_up => Finding::warn(
            CHECK,
            format!("{rpc} is on chain {chain_id} and still fetches old blocks, at height {height}"),
            "wait until it has caught up, or give another with --node",
        ),
        _ => Finding::ok(CHECK, format!("{rpc} is on chain {chain_id}, at height {height}")),
    }
}

/// Whether blocks come. `later` is the first look that showed a new block, or the last one before giving up.
pub(crate) fn head(first: &Head, later: &Head, waited: Duration, now_nanos: u64) -> Finding {
    const CHECK: &str = "head";
    let (from, to) = (first.height, later.height);
    let seconds = waited.as_secs_f32();
    let age = Duration::from_nanos(now_nanos.saturating_sub(later.time_nanos));
    if to > from {
        Finding::ok(CHECK, format!("block {to} came within {seconds:.1} s"))
    } else if to < from {
        Finding::fail(
            CHECK,
            format!("the chain went back from block {from} to {to}"),
            "it was reset: start services anew with empty homes, and get the network file anew",
        )
    } else if age > BLOCK_AGE_MAX {
        Finding::fail(
            CHECK,
            format!("no new block for {} s, block {to} is the newest", age.as_secs()),
            "the node stands still or the clock here is ahead: look at its log, or give another with --node",
        )
    } else {
        Finding::warn(
            CHECK,
            format!("no new block within {seconds:.1} s after block {to}"),
            "run it again: chains of slow blocks need patience",
        )
    }
}

/// This machine's clock against the newest block's.
pub(crate) fn clock(block_nanos: u64, now_nanos: u64, is_fresh: bool) -> Finding {
    const CHECK: &str = "clock";
    const FIX: &str =
        "set the clock, for example with `timedatectl set-ntp true`: deadlines and signed requests depend on it";
    let off = Duration::from_nanos(now_nanos.abs_diff(block_nanos)).as_secs();
    let direction = if now_nanos < block_nanos { "behind" } else { "ahead of" };
    // An old block says nothing about a clock that is ahead of it.
    if !is_fresh && now_nanos >= block_nanos {
        return Finding::warn(
            CHECK,
            "not compared: there is no new block to compare with",
            "see what is said about the head",
        );
    }
    let told = format!("{off} s {direction} the newest block");
    match off {
        off if off >= SKEW_SECONDS_FAIL => Finding::fail(CHECK, told, FIX),
        off if off >= SKEW_SECONDS_WARN => Finding::warn(CHECK, told, FIX),
        _ => Finding::ok(CHECK, told),
    }
}

/// The home, or the nearest folder above it that exists.
pub(crate) fn home(home: &Path, disk: &Disk) -> Vec<Finding> {
    vec![private(home, disk), room(home, disk)]
}

fn private(home: &Path, disk: &Disk) -> Finding {
    const CHECK: &str = "home";
    let shown = home.display();
    let Some(mode) = disk.mode else {
        return match disk.writable {
            true => Finding::ok(CHECK, format!("{shown} does not exist yet; commands make it")),
            false => Finding::fail(
                CHECK,
                format!("{shown} does not exist and cannot be made"),
                "give a folder of yours with --home DIR",
            ),
        };
    };
    if !disk.is_folder {
        return Finding::fail(CHECK, format!("{shown} is not a folder"), "give another --home DIR");
    }
    if !disk.writable {
        return Finding::fail(
            CHECK,
            format!("{shown} cannot be written to"),
            format!("`chmod u+rwx {shown}` if it is yours, otherwise give another --home DIR"),
        );
    }
    match mode & 0o777 {
        0o700 => Finding::ok(CHECK, format!("{shown} is private and can be written to")),
        mode if mode & 0o022 != 0 => Finding::fail(
            CHECK,
            format!("{shown} can be changed by others (mode {mode:03o})"),
            format!("chmod 700 {shown}"),
        ),
        mode => Finding::warn(
            CHECK,
            format!("{shown} can be looked into by others (mode {mode:03o})"),
            format!("chmod 700 {shown}"),
        ),
    }
}

fn room(home: &Path, disk: &Disk) -> Finding {
    const CHECK: &str = "disk";
    let told = format!("{} free at {}", size(disk.free_bytes), home.display());
    let fix = "make room, or give a folder on another disk with --home DIR: weights and outputs are kept there";
    match disk.free_bytes {
        free if free < FREE_BYTES_FAIL => Finding::fail(CHECK, told, fix),
        free if free < FREE_BYTES_WARN => Finding::warn(CHECK, told, fix),
        _ => Finding::ok(CHECK, told),
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0x4000_0000.. => format!("{} GiB", bytes >> 30),
        _ => format!("{} MiB", bytes >> 20),
    }
}

/// A default port. One of our own at work is as it should be.
pub(crate) fn port(port: &PortFact) -> Finding {
    const CHECK: &str = "port";
    let PortFact {
        number,
        service,
        used_by,
        free,
    } = port;
    let flag = service.flag();
    match (free, used_by) {
        (true, _) => Finding::ok(CHECK, format!("{number} ({service}) is free")),
        (false, Some(user)) if user.ends_with("(fxn)") => {
            Finding::ok(CHECK, format!("{number} ({service}) is used by {user}"))
        }
        (false, user) => Finding::warn(
            CHECK,
            format!(
                "{number} ({service}) is used by {}",
                user.as_deref().unwrap_or("another program")
            ),
            format!("stop that program, or give another address with {flag}"),
        ),
    }
}

pub(crate) fn key(key: &KeyFact) -> Finding {
    const CHECK: &str = "key";
    let KeyFact { path, mode, readable } = key;
    let shown = path.display();
    if let Err(reason) = readable {
        return Finding::fail(
            CHECK,
            reason.clone(),
            "put a copy back, or move the file away and bring the key back with `fxn keys import`",
        );
    }
    match mode & 0o777 {
        0o600 | 0o400 => Finding::ok(CHECK, format!("{shown} is encrypted and private")),
        mode => Finding::fail(
            CHECK,
            format!("{shown} can be read or changed by others (mode {mode:03o})"),
            format!("chmod 600 {shown}"),
        ),
    }
}

/// Cores, memory and open files.
pub(crate) fn machine(limits: &Limits) -> Vec<Finding> {
    let memory = limits.memory_bytes.map_or_else(
        || "memory unknown".to_owned(),
        |bytes| format!("{} of memory", size(bytes)),
    );
    let told = format!("{} cores, {memory}", limits.cores);
    let files = format!("{} may be open at the same time", limits.files);
    let fix = "raise it with `ulimit -n 4096`, or LimitNOFILE= of the systemd unit";
    let files = match limits.files {
        most if most < FILES_FAIL => Finding::fail("files", files, fix),
        most if most < FILES_WARN => Finding::warn("files", files, fix),
        _ => Finding::ok("files", files),
    };
    vec![Finding::ok("machine", told), files]
}

#[cfg(test)]
#[path = "checks_tests.rs"]
mod tests;
