//! Looking: each look changes nothing and ends within its time.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::Context as _;
use inference_host::onnx::Device;
use rustix::{
    fs::{access, statvfs, Access},
    process::{getrlimit, Resource},
};
use tokio::{process::Command, time::timeout};

use crate::keys::{KeyName, KeyStore, PASSPHRASE_VARIABLE};

/// Longest look at a library.
const PROBE_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest look at a device: CUDA's libraries are large, and a driver takes its time.
const DEVICE_TIMEOUT: Duration = Duration::from_secs(120);

/// What became of the process that loaded the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Probed {
    /// It gives this engine class.
    Class(String),
    /// The program's own sentence.
    Refused(String),
    /// How the process ended.
    Crashed(String),
    /// After so many seconds.
    Hung(u64),
    NotTried,
}

/// Loads the library in a process of its own: a file that is no library may do anything to the one that loads it.
pub(crate) async fn probe(library: &Path, device: Device) -> Probed {
    let patience = match device {
        Device::Cpu => PROBE_TIMEOUT,
        Device::Cuda(_) => DEVICE_TIMEOUT,
    };
    match timeout(patience, run_probe(library, device)).await {
        Ok(Ok(probed)) => probed,
        Ok(Err(error)) => Probed::Refused(format!("{error:#}")),
        Err(_) => Probed::Hung(patience.as_secs()),
    }
}

async fn run_probe(library: &Path, device: Device) -> anyhow::Result<Probed> {
    let own = std::env::current_exe().context("failed to find this program's own file")?;
    let output = Command::new(own)
        .args(["doctor", "--probe-library"])
        .arg(library)
        .args(["--device", &device.to_string()])
        .env_remove(PASSPHRASE_VARIABLE)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("failed to start a process")?;
    let line = |bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        text.lines().last().unwrap_or_default().trim().to_owned()
    };
    Ok(match output.status.code() {
        Some(0) => Probed::Class(line(&output.stdout)),
        Some(1) => Probed::Refused(line(&output.stderr).trim_start_matches("fxn: ").to_owned()),
        _ => Probed::Crashed(output.status.to_string()),
    })
}

/// Where a chain stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) chain_id: String,
    pub(crate) height: u64,
    pub(crate) time_nanos: u64,
    pub(crate) catching_up: bool,
}

impl From<client::Status> for Head {
    fn from(status: client::Status) -> Self {
        Self {
            chain_id: status.chain_id,
            height: status.height,
            time_nanos: status.time_nanos,
            catching_up: status.catching_up,
        }
    }
}

/// The disk under a folder that may not exist yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disk {
    /// None where there is nothing.
    pub(crate) mode: Option<u32>,
    pub(crate) is_folder: bool,
    pub(crate) writable: bool,
    pub(crate) free_bytes: u64,
}

pub(crate) fn disk(home: &Path) -> anyhow::Result<Disk> {
    let home = std::path::absolute(home).context("failed to find the current folder")?;
    let existing = home.ancestors().find(|folder| folder.exists());
    let existing = existing.context("there is no folder above it")?;
    let metadata = fs::metadata(&home).ok();
    let free = statvfs(existing).with_context(|| format!("failed to look at the disk of {}", existing.display()))?;
    Ok(Disk {
        mode: metadata.as_ref().map(|found| found.permissions().mode()),
        is_folder: metadata.is_some_and(|found| found.is_dir()),
        writable: existing.is_dir() && access(existing, Access::WRITE_OK | Access::EXEC_OK).is_ok(),
        free_bytes: free.f_bavail.saturating_mul(free.f_frsize),
    })
}

/// Who listens on a port by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Service {
    Rpc,
    Host,
    HostStatus,
    RelayerStatus,
    Blobs,
    Gateway,
}

impl Service {
    /// The flag that moves it.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Rpc => "`fxn devnet --rpc`",
            Self::Host => "`fxn host --listen`",
            Self::HostStatus => "`fxn host --status`",
            Self::RelayerStatus => "`fxn relayer --relayer-status`",
            Self::Blobs => "`fxn model serve --listen`",
            Self::Gateway => "the gateway's own settings",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Rpc => "devnet's RPC",
            Self::Host => "host",
            Self::HostStatus => "host's status",
            Self::RelayerStatus => "relayer's status",
            Self::Blobs => "model serve",
            Self::Gateway => "gateway",
        })
    }
}

pub(crate) const PORTS: [(u16, Service); 6] = [
    (26657, Service::Rpc),
    (7070, Service::Host),
    (7071, Service::HostStatus),
    (7072, Service::RelayerStatus),
    (7080, Service::Blobs),
    (8080, Service::Gateway),
];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortFact {
    pub(crate) number: u16,
    pub(crate) service: Service,
    pub(crate) free: bool,
    /// `pid 12 (name)`, where this account may see it.
    pub(crate) used_by: Option<String>,
}

pub(crate) fn port(number: u16, service: Service) -> PortFact {
    let free = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, number))).is_ok();
    PortFact {
        number,
        service,
        free,
        used_by: if free { None } else { user_of(number) },
    }
}

/// The process that listens on a port: the socket's number stands in the kernel's table, and among the open files of a process.
fn user_of(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|table| fs::read_to_string(table).unwrap_or_default());
    let sockets: Vec<String> = tables.iter().flat_map(|table| listeners(table, port)).collect();
    let processes = fs::read_dir("/proc").ok()?;
    processes.filter_map(Result::ok).find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let files = fs::read_dir(process.path().join("fd")).ok()?;
        let mut links = files
            .filter_map(Result::ok)
            .filter_map(|file| fs::read_link(file.path()).ok());
        if !links.any(|link| sockets.iter().any(|socket| link.as_os_str() == socket.as_str())) {
            return None;
        }
        let name = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
        Some(format!("pid {pid} ({})", name.trim()))
    })
}

/// `socket:[inode]` of each listener on a port, from a table of the kernel.
fn listeners(table: &str, port: u16) -> Vec<String> {
    const LISTENING: &str = "0A";
    let ending = format!(":{port:04X}");
    let of_line = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(1)?.ends_with(&ending) && *fields.get(3)? == LISTENING;
        matches.then(|| fields.get(9).map(|inode| format!("socket:[{inode}]")))?
    };
    table.lines().skip(1).filter_map(of_line).collect()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyFact {
    pub(crate) path: PathBuf,
    pub(crate) mode: u32,
    pub(crate) readable: Result<(), String>,
}

/// Key files, and the passphrases that `fxn demo` puts beside them.
pub(crate) fn keys(home: &Path) -> Result<Vec<KeyFact>, String> {
    let store = KeyStore::new(home);
    let names = store.names().map_err(|error| error.to_string())?;
    let mode = |path: &Path| fs::metadata(path).map_or(0, |found| found.permissions().mode());
    let mut found = vec![];
    for name in names {
        let of_key = |path: PathBuf, readable| KeyFact {
            mode: mode(&path),
            path,
            readable,
        };
        let readable = |name: &KeyName| store.public_key(name).map(drop).map_err(|error| error.to_string());
        found.push(of_key(store.path(&name), readable(&name)));
        let beside = store.passphrase_path(&name);
        if beside.exists() {
            found.push(of_key(beside, Ok(())));
        }
    }
    Ok(found)
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Limits {
    pub(crate) cores: usize,
    pub(crate) memory_bytes: Option<u64>,
    /// Open files of a process.
    pub(crate) files: u64,
}

pub(crate) fn limits() -> Limits {
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Limits {
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_bytes(&memory),
        files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

fn memory_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_listener_of_a_port_is_found_by_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let fact = port(number, Service::Rpc);
        assert!(!fact.free);
        let user = fact.used_by.unwrap();
        assert!(user.starts_with(&format!("pid {} (", std::process::id())), "{user}");
        drop(listener);
        assert!(port(number, Service::Rpc).free);
    }

    #[test]
    fn a_home_that_does_not_exist_is_looked_at_and_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().join("a/b");
        let disk = disk(&home).unwrap();
        assert!(disk.mode.is_none() && disk.writable && disk.free_bytes > 0);
        assert_eq!(keys(&home).unwrap(), []);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_connection_from_a_port_is_no_listener() {
        let table = "head\n 0: 0100007F:1B9E 00000000:0000 0A 0:0 0:0 0 0 0 77 1\n 1: 0100007F:1B9E 0100007F:0001 01 0:0 0:0 0 0 0 78 1\n";
        assert_eq!(listeners(table, 7070), ["socket:[77]"]);
        assert_eq!(memory_bytes("MemFree: 1 kB\nMemTotal:  2 kB\n"), Some(2048));
    }
}
