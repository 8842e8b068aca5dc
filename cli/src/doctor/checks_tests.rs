//! A table of everything that can be wrong, and what mends it.

use super::*;
use crate::doctor::facts::Service;

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_800_000_000 * SECOND;

fn head_at(height: u64, time_nanos: u64) -> Head {
    Head {
        chain_id: "fxn-1".into(),
        height,
        time_nanos,
        catching_up: false,
    }
}

fn disk(mode: Option<u32>) -> Disk {
    Disk {
        mode,
        is_folder: mode.is_some(),
        writable: true,
        free_bytes: 100 << 30,
    }
}

fn port_fact(used_by: Option<&str>) -> PortFact {
    PortFact {
        number: 7070,
        service: Service::Host,
        free: false,
        used_by: used_by.map(str::to_owned),
    }
}

fn key_fact(mode: u32) -> KeyFact {
    KeyFact {
        path: "keys/a.json".into(),
        mode,
        readable: Ok(()),
    }
}

fn limits(files: u64) -> Limits {
    Limits {
        cores: 2,
        memory_bytes: Some(4 << 30),
        files,
    }
}

fn class(class: &str) -> Probed {
    Probed::Class(class.to_owned())
}

fn the_home(disk: &Disk) -> Finding {
    home(Path::new("/h"), disk).remove(0)
}

fn the_disk(free_bytes: u64) -> Finding {
    home(
        Path::new("/h"),
        &Disk {
            free_bytes,
            ..disk(Some(0o700))
        },
    )
    .remove(1)
}

#[test]
fn a_machine_that_is_fit_is_told_so() {
    let found: Result<String, String> = Ok("/lib.so".into());
    let good = class("ort-1.31.1/cpu/avx2+fma/f32/opt=all/wire=f32");
    let (first, later) = (head_at(1, NOW - SECOND), head_at(2, NOW));
    let mut findings = vec![
        library(&found, &good),
        processor("avx2+fma", &good),
        device(Device::Cuda(0), &class("ort-1.31.1/cuda/nvidia-l4/sm_89")),
        chain("http://n:1", Some("fxn-1"), &first),
        chain("http://n:1", None, &first),
        head(&first, &later, Duration::from_millis(500), NOW),
        clock(NOW - 7 * SECOND, NOW, true),
        the_home(&disk(Some(0o40700))),
        the_home(&disk(None)),
        the_disk(100 << 30),
        port(&port_fact(Some("pid 7 (fxn)"))),
        key(&key_fact(0o100_600)),
    ];
    findings.extend(machine(&limits(1024)));
    for finding in findings {
        assert_eq!((finding.status, &finding.fix), (Status::Ok, &None), "{finding:?}");
    }
}

#[test]
fn every_failure_tells_its_fact_and_what_mends_it() {
    let found: Result<String, String> = Ok("/lib.so".into());
    let missing: Result<String, String> = Err("no ONNX Runtime library".into());
    let (first, old) = (head_at(9, NOW - SECOND), head_at(9, NOW - 3600 * SECOND));
    let elsewhere = Head {
        chain_id: "other".into(),
        ..first.clone()
    };
    let unreadable = KeyFact {
        readable: Err("keys/a.json cannot be used".into()),
        ..key_fact(0o600)
    };
    let read_only = Disk {
        writable: false,
        ..disk(Some(0o700))
    };
    let nowhere = Disk {
        writable: false,
        ..disk(None)
    };
    let a_file = Disk {
        is_folder: false,
        ..disk(Some(0o600))
    };
    let refused = Probed::Refused("failed to load ONNX Runtime from /lib.so".into());
    let crashed = Probed::Crashed("signal: 11 (SIGSEGV)".into());
    let waited = Duration::from_secs(12);
    let table: Vec<(Finding, &str, &str)> = vec![
        (
            library(&missing, &Probed::NotTried),
            "no ONNX Runtime",
            "scripts/models.sh",
        ),
        (
            library(&found, &class("ort-1.20.1/cpu")),
            "1.20.1, 1.22 or newer",
            "scripts/models.sh",
        ),
        (library(&found, &refused), "failed to load", "--onnxruntime FILE"),
        (library(&found, &crashed), "SIGSEGV", "FXN_ONNXRUNTIME"),
        (library(&found, &Probed::Hung(20)), "20 s", "scripts/models.sh"),
        (
            device(Device::Cuda(1), &refused),
            "cuda:1: failed to load",
            "onnxruntime-gpu",
        ),
        (device(Device::Cuda(0), &crashed), "SIGSEGV", "LD_LIBRARY_PATH"),
        (device(Device::Cuda(0), &Probed::Hung(120)), "120 s", "driver"),
        (
            device(Device::Cuda(0), &Probed::NotTried),
            "without ONNX Runtime",
            "FXN_ONNXRUNTIME",
        ),
        (chain("http://n:1", Some("fxn-1"), &elsewhere), "\"other\"", "--network"),
        (head(&old, &old, waited, NOW), "no new block for 3600 s", "--node"),
        (
            head(&head_at(9, NOW), &head_at(3, NOW), waited, NOW),
            "from block 9 to 3",
            "reset",
        ),
        (clock(NOW - 3600 * SECOND, NOW, true), "3600 s ahead of", "timedatectl"),
        (clock(NOW + 31 * SECOND, NOW, true), "31 s behind", "timedatectl"),
        (clock(NOW + 90 * SECOND, NOW, false), "90 s behind", "timedatectl"),
        (the_home(&disk(Some(0o777))), "mode 777", "chmod 700 /h"),
        (the_home(&read_only), "cannot be written", "chmod u+rwx /h"),
        (the_home(&nowhere), "cannot be made", "--home DIR"),
        (the_home(&a_file), "not a folder", "--home DIR"),
        (the_disk(1 << 20), "1 MiB free", "make room"),
        (key(&key_fact(0o644)), "mode 644", "chmod 600 keys/a.json"),
        (key(&key_fact(0o660)), "mode 660", "chmod 600 keys/a.json"),
        (key(&unreadable), "cannot be used", "fxn keys import"),
        (machine(&limits(64)).remove(1), "64 may be open", "ulimit -n"),
    ];
    for (finding, told, fix) in table {
        assert_eq!(finding.status, Status::Fail, "{finding:?}");
        assert!(finding.told.contains(told), "{finding:?} does not tell {told:?}");
        assert!(
            finding.fix.as_ref().unwrap().contains(fix),
            "{finding:?} does not say {fix:?}"
        );
    }
}

#[test]
fn what_may_still_work_is_a_warning_with_its_fix() {
    let first = head_at(9, NOW - SECOND);
    let behind = Head {
        catching_up: true,
        ..first.clone()
    };
    let table: Vec<(Finding, &str)> = vec![
        (processor("sse2", &Probed::NotTried), "avx2"),
        (chain("http://n:1", None, &behind), "caught up"),
        (head(&first, &first, Duration::from_secs(12), NOW), "again"),
        (clock(NOW - 20 * SECOND, NOW, true), "timedatectl"),
        (clock(NOW - 3600 * SECOND, NOW, false), "head"),
        (the_home(&disk(Some(0o755))), "chmod 700 /h"),
        (the_disk(1 << 30), "make room"),
        (port(&port_fact(Some("pid 7 (nginx)"))), "--listen"),
        (port(&port_fact(None)), "--listen"),
        (machine(&limits(512)).remove(1), "LimitNOFILE"),
    ];
    for (finding, fix) in table {
        assert_eq!(finding.status, Status::Warn, "{finding:?}");
        assert!(finding.fix.as_ref().unwrap().contains(fix), "{finding:?}");
    }
}
