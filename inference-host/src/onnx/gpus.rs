//! The GPUs of this machine, as the driver's own program tells them.
//!
//! CUDA counts those that it is shown, and by default the fastest first; `nvidia-smi` counts by slot. The two are told apart only where the
//! answer matters: where the GPUs differ.

use std::{
    env,
    io::Read,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// The program that comes with the driver.
const PROGRAM: &str = "nvidia-smi";
const QUERY: &str = "--query-gpu=uuid,name,compute_cap,driver_version,memory.total";
/// A driver that is broken may not answer at all.
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// One GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    uuid: String,
    pub name: String,
    /// `9.0`
    pub compute_capability: String,
    /// `580.159.04`
    pub driver: String,
    pub memory_mib: u64,
}

/// Why it is not known which GPU would compute.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    #[error("nvidia-smi, which comes with the driver, does not run: {reason}")]
    Program { reason: String },
    #[error("nvidia-smi tells of a GPU in a way that is not understood: {line:?}")]
    Line { line: String },
    #[error("there is no device cuda:{index}: {count} GPUs can be used")]
    Missing { index: u32, count: usize },
    #[error("CUDA_VISIBLE_DEVICES names {name:?}, which is no GPU of this machine")]
    Visible { name: String },
    #[error("the GPUs of this machine differ, so their numbers are ambiguous: set CUDA_DEVICE_ORDER=PCI_BUS_ID")]
    Order,
}

impl Gpu {
    /// What decides its results: the model tells the number of its processors, the capability the instructions.
    pub(super) fn class(&self) -> String {
        let name = self.name.to_lowercase();
        let words = name.split(|character: char| !character.is_ascii_alphanumeric());
        let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
        let capability = self.compute_capability.replace('.', "");
        format!("{}/sm_{capability}", words.join("-"))
    }

    /// The driver compiles what the libraries have no code for, so its branch counts.
    pub(super) fn driver_branch(&self) -> &str {
        self.driver.split('.').next().unwrap_or_default()
    }

    pub(super) fn parse(line: &str) -> Result<Self, GpuError> {
        let unknown = || GpuError::Line { line: line.to_owned() };
        let fields: Vec<&str> = line.split(',').map(str::trim).collect();
        let [uuid, name, compute_capability, driver, memory] = fields[..] else {
            return Err(unknown());
        };
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        if !digits(compute_capability) || !digits(driver) || name.is_empty() {
            return Err(unknown());
        }
        Ok(Self {
            uuid: uuid.to_owned(),
            name: name.to_owned(),
            compute_capability: compute_capability.to_owned(),
            driver: driver.to_owned(),
            memory_mib: memory.parse().map_err(|_| unknown())?,
        })
    }
}

/// The GPU that CUDA calls by this number.
pub(super) fn find(index: u32) -> Result<Gpu, GpuError> {
    let variable = |name: &str| env::var(name).ok();
    let listed = ask(PROGRAM)?;
    let gpus = listed.lines().filter(|line| !line.trim().is_empty()).map(Gpu::parse);
    let gpus: Vec<Gpu> = gpus.collect::<Result<_, _>>()?;
    let visible = variable("CUDA_VISIBLE_DEVICES");
    let by_slot = variable("CUDA_DEVICE_ORDER").is_some_and(|order| order == "PCI_BUS_ID");
    choose(&gpus, visible.as_deref(), by_slot, index).cloned()
}

fn choose<'a>(gpus: &'a [Gpu], visible: Option<&str>, by_slot: bool, index: u32) -> Result<&'a Gpu, GpuError> {
    let same = |one: &Gpu, other: &Gpu| one.class() == other.class();
    let named = |name: &str| {
        let by_number = name.parse::<usize>().ok().and_then(|number| gpus.get(number));
        let by_uuid = || {
            gpus.iter()
                .find(|gpu| name.starts_with("GPU-") && gpu.uuid.starts_with(name))
        };
        by_number.or_else(by_uuid)
    };
    let visible: Vec<&Gpu> = match visible {
        None => gpus.iter().collect(),
        Some(names) => {
            let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
            let gpu = |name: &str| named(name).ok_or_else(|| GpuError::Visible { name: name.to_owned() });
            names.map(gpu).collect::<Result<_, _>>()?
        }
    };
    let count = visible.len();
    let missing = || GpuError::Missing { index, count };
    let found = usize::try_from(index)
        .ok()
        .and_then(|index| visible.get(index))
        .ok_or_else(missing)?;
    match by_slot || gpus.iter().all(|gpu| same(gpu, found)) {
        true => Ok(found),
        false => Err(GpuError::Order),
    }
}

/// What the program says, within its time.
fn ask(program: &str) -> Result<String, GpuError> {
    let failed = |reason: String| GpuError::Program { reason };
    let command = Command::new(program)
        .args([QUERY, "--format=csv,noheader,nounits"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = command.map_err(|error| failed(error.to_string()))?;
    let begun = Instant::now();
    let ended = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if begun.elapsed() < PATIENCE => thread::sleep(POLL),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed(format!("no answer within {} s", PATIENCE.as_secs())));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    };
    // A table of GPUs fits into the pipe's buffer, so nobody waits for us to read it.
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said)
            .map_err(|error| failed(error.to_string()))?;
    }
    match ended.success() {
        true => Ok(said),
        false => Err(failed(format!("{ended}: {}", said.trim()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const H100: &str = "GPU-a1, NVIDIA H100 80GB HBM3, 9.0, 580.159.04, 81559";
    const L4: &str = "GPU-b2, NVIDIA L4, 8.9, 580.159.04, 23034";

    fn gpus(lines: &[&str]) -> Vec<Gpu> {
        lines.iter().map(|line| Gpu::parse(line).unwrap()).collect()
    }

    #[test]
    fn a_gpu_is_known_by_its_model_its_instructions_and_its_drivers_branch() {
        let gpu = Gpu::parse(H100).unwrap();
        assert_eq!(gpu.class(), "nvidia-h100-80gb-hbm3/sm_90");
        assert_eq!((gpu.driver_branch(), gpu.memory_mib), ("580", 81_559));
        for line in [
            "",
            "No devices were found",
            "GPU-a, NVIDIA L4, [N/A], 580, 1",
            "GPU-a, L4, 8.9, 580.1, x",
        ] {
            assert_eq!(Gpu::parse(line), Err(GpuError::Line { line: line.to_owned() }));
        }
    }

    #[test]
    fn the_number_of_a_gpu_is_cudas_and_where_that_is_ambiguous_nothing_is_guessed() {
        let twins = gpus(&[H100, &H100.replace("a1", "a2")]);
        assert_eq!(choose(&twins, None, false, 1).unwrap().uuid, "GPU-a2");
        assert_eq!(choose(&twins, Some("1"), false, 0).unwrap().uuid, "GPU-a2");
        assert_eq!(choose(&twins, Some("GPU-a2, 0"), false, 0).unwrap().uuid, "GPU-a2");
        for (visible, index, count) in [(None, 2, 2), (Some("1"), 1, 1), (Some(""), 0, 0)] {
            assert_eq!(
                choose(&twins, visible, false, index),
                Err(GpuError::Missing { index, count })
            );
        }
        let name = "GPU-zz".to_owned();
        assert_eq!(
            choose(&twins, Some("GPU-zz"), false, 0),
            Err(GpuError::Visible { name })
        );
        let mixed = gpus(&[L4, H100]);
        assert_eq!(choose(&mixed, None, false, 0), Err(GpuError::Order));
        assert_eq!(choose(&mixed, None, true, 0).unwrap().name, "NVIDIA L4");
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let missing = ask(folder.path().join("nvidia-smi").to_str().unwrap()).unwrap_err();
        assert!(missing.to_string().contains("No such file"), "{missing}");
        let program = |script: &str| {
            let path = folder.path().join(format!("smi-{}", script.len()));
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            ask(path.to_str().unwrap())
        };
        let broken = program("echo 'No devices were found'; exit 6").unwrap_err().to_string();
        assert!(broken.ends_with("exit status: 6: No devices were found"), "{broken}");
        assert_eq!(program(&format!("echo '{H100}'")).unwrap().trim(), H100);
    }
}
