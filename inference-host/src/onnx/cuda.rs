//! ONNX Runtime's CUDA provider: whether it can be used here, what decides its bits, and with which options sessions run on it.
//!
//! Guarantees: a host that was told to compute on a GPU computes there or does not start; every reason has a sentence that says what is missing;
//! what is known to change results is in the engine class (model and instructions of the GPU, branch of its driver, the versions of CUDA's
//! libraries) and what could change them from run to run is switched off (TF32, the search for the fastest convolution, kernels that are not
//! deterministic).

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use ort::{
    environment::Environment,
    ep::{self, cuda::ConvAlgorithmSearch, ArenaExtendStrategy, ExecutionProvider, ExecutionProviderDispatch},
    session::Session,
};
use sha2::{Digest, Sha256};

use super::{
    gpus::{self, Gpu, GpuError},
    session::{Probe, CONVOLUTION, PRODUCT},
};

/// What ONNX Runtime calls the provider.
pub(super) const PROVIDER: &str = "CUDAExecutionProvider";
/// Files of the provider, which lie beside the library.
const FILES: [&str; 2] = ["libonnxruntime_providers_shared.so", "libonnxruntime_providers_cuda.so"];
/// The driver's own library.
const DRIVER: &str = "libcuda.so.1";
/// What the kernels come out of.
const LIBRARIES: [&str; 7] = [
    "libcublas.",
    "libcublasLt.",
    "libcudart.",
    "libcudnn",
    "libcufft.",
    "libcurand.",
    "libnvrtc.",
];

/// Why stages cannot run on a GPU here.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    #[error("{path} is missing: this ONNX Runtime computes on the CPU only; give one that is built for CUDA (the package onnxruntime-gpu) by --onnxruntime or FXN_ONNXRUNTIME", path = path.display())]
    NoProvider { path: PathBuf },
    #[error("{library} does not know CUDA, though a provider for it lies beside it: they are not of one package", library = library.display())]
    NotBuiltIn { library: PathBuf },
    #[error("there is no driver for a GPU of NVIDIA: {reason}")]
    NoDriver { reason: String },
    #[error(transparent)]
    Gpu(#[from] GpuError),
    #[error("the CUDA provider cannot be used: {reason}; the libraries of CUDA and cuDNN that it was built for must be where the system looks for them (LD_LIBRARY_PATH)")]
    Provider { reason: String },
    #[error("the GPU does not compute: {reason}")]
    Probe { reason: String },
}

/// A GPU that has shown that it computes.
#[derive(Clone, Debug)]
pub(super) struct Cuda {
    index: u32,
    memory_bytes_max: u64,
    /// Its part of the engine class.
    class: String,
}

impl Cuda {
    /// Makes sure of everything that a session will need, and computes something.
    pub(super) fn open(
        environment: &Environment,
        library: &Path,
        index: u32,
        memory_bytes_max: u64,
    ) -> Result<Self, CudaError> {
        provider_files(library)?;
        if !ep::CUDA::is_available().unwrap_or(false) {
            let library = library.to_owned();
            return Err(CudaError::NotBuiltIn { library });
        }
        ort::util::preload_dylib(DRIVER).map_err(|error| CudaError::NoDriver {
            reason: with_cause(&error),
        })?;
        let gpu = gpus::find(index)?;
        let mut cuda = Self {
            index,
            memory_bytes_max,
            class: String::new(),
        };
        cuda.probe(environment, PRODUCT)?;
        if let Err(error) = cuda.probe(environment, CONVOLUTION) {
            tracing::warn!(%error, "cuDNN cannot be used: models with convolutions cannot be served");
        }
        // Only now are the libraries loaded that the provider asks for.
        let libraries = libraries(&fs::read_to_string("/proc/self/maps").unwrap_or_default());
        tracing::info!(
            gpu = gpu.name,
            driver = gpu.driver,
            memory_mib = gpu.memory_mib,
            ?libraries,
            "stages run on a GPU"
        );
        cuda.class = class(&gpu, &libraries);
        Ok(cuda)
    }

    pub(super) fn class(&self) -> &str {
        &self.class
    }

    /// The provider with our options. It is an error if it cannot be had.
    pub(super) fn provider(&self) -> ExecutionProviderDispatch {
        let memory = usize::try_from(self.memory_bytes_max).unwrap_or(usize::MAX);
        ep::CUDA::default()
            .with_device_id(i32::try_from(self.index).unwrap_or(i32::MAX))
            .with_memory_limit(memory)
            // Otherwise each growth doubles the arena, and the limit is met with half of it unused.
            .with_arena_extend_strategy(ArenaExtendStrategy::SameAsRequested)
            .with_tf32(false)
            // The exhaustive search takes whatever was fastest at that moment.
            .with_conv_algorithm_search(ConvAlgorithmSearch::Heuristic)
            .build()
            .error_on_failure()
    }

    fn probe(&self, environment: &Environment, probe: Probe) -> Result<(), CudaError> {
        let mut session = self.probe_session(environment, probe)?;
        probe.run(&mut session).map_err(|error| CudaError::Probe {
            reason: first_line(&with_cause(&error)),
        })
    }

    fn probe_session(&self, environment: &Environment, probe: Probe) -> Result<Session, CudaError> {
        let failed = |error: &dyn std::fmt::Display| CudaError::Provider {
            reason: first_line(&error.to_string()),
        };
        let builder = Session::builder(environment).map_err(|error| failed(&error))?;
        let builder = builder
            .with_execution_providers([self.provider()])
            .map_err(|error| failed(&error))?;
        let mut builder = builder.with_disable_cpu_fallback().map_err(|error| failed(&error))?;
        builder
            .commit_from_memory(&probe.model())
            .map_err(|error| failed(&error))
    }
}

/// The files of the provider beside the library.
fn provider_files(library: &Path) -> Result<(), CudaError> {
    let folder = library.parent().unwrap_or(Path::new("."));
    let mut paths = FILES.iter().map(|file| folder.join(file));
    match paths.find(|path| !path.is_file()) {
        Some(path) => Err(CudaError::NoProvider { path }),
        None => Ok(()),
    }
}

/// Everything of a GPU and its software that is known to decide bits.
fn class(gpu: &Gpu, libraries: &BTreeSet<String>) -> String {
    let mut sha = Sha256::new();
    libraries.iter().for_each(|library| sha.update(format!("{library}\n")));
    let digest = hex::encode(sha.finalize());
    let short: String = digest.chars().take(8).collect();
    format!("cuda/{}/drv{}/libs-{short}", gpu.class(), gpu.driver_branch())
}

/// CUDA's libraries in this process, out of the list of its mapped files: each with its full version where its name has one, and its length,
/// which tells versions apart where the name does not.
fn libraries(maps: &str) -> BTreeSet<String> {
    let paths: BTreeSet<&str> = maps.lines().filter_map(|line| Some(&line[line.find('/')?..])).collect();
    let described = |path: &str| {
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.into());
        let name = path.file_name()?.to_str()?.to_owned();
        let ours = LIBRARIES.iter().any(|library| name.starts_with(library));
        let bytes = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        ours.then(|| format!("{name} {bytes}"))
    };
    paths.into_iter().filter_map(described).collect()
}

/// The sentence of an error that keeps the interesting part in its source.
fn with_cause(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Errors of ONNX Runtime begin with places in its source, and may go on with hints.
fn first_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let said = line.split_once(" : FAIL : ").map_or(line, |(_, said)| said);
    said.trim().to_owned()
}

/// Whether an error says that the device has no memory left: the same may go through when others are done.
pub(super) fn is_out_of_memory(message: &str) -> bool {
    let message = message.to_lowercase();
    [
        "failed to allocate memory",
        "out of memory",
        "cublas_status_alloc_failed",
        "cudnn_status_alloc_failed",
        "available memory of",
    ]
    .iter()
    .any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_without_the_provider_beside_it_is_told_by_the_file_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libonnxruntime.so");
        for file in FILES {
            let error = provider_files(&library).unwrap_err().to_string();
            let expected = format!(
                "{} is missing: this ONNX Runtime computes on the CPU only; ",
                folder.path().join(file).display()
            );
            assert!(error.starts_with(&expected), "{error}");
            fs::write(folder.path().join(file), "").unwrap();
        }
        provider_files(&library).unwrap();
    }

    #[test]
    fn the_class_changes_with_the_gpu_the_drivers_branch_and_every_library_and_with_nothing_else() {
        let line = |name: &str, capability: &str, driver: &str, memory: u32| {
            Gpu::parse(&format!("GPU-1, {name}, {capability}, {driver}, {memory}")).unwrap()
        };
        let libraries = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<BTreeSet<String>>()
        };
        let ours = ["libcudnn.so.9.8.0 100", "libcublas.so.12 200"];
        let usual = class(&line("NVIDIA H100 PCIe", "9.0", "580.159.04", 1), &libraries(&ours));
        assert!(usual.starts_with("cuda/nvidia-h100-pcie/sm_90/drv580/libs-"), "{usual}");
        let same = class(
            &line("NVIDIA H100 PCIe", "9.0", "580.20", 2),
            &libraries(&[ours[1], ours[0]]),
        );
        assert_eq!(same, usual);
        for other in [
            class(&line("NVIDIA H200", "9.0", "580.159.04", 1), &libraries(&ours)),
            class(&line("NVIDIA H100 PCIe", "9.1", "580.159.04", 1), &libraries(&ours)),
            class(&line("NVIDIA H100 PCIe", "9.0", "570.1", 1), &libraries(&ours)),
            class(
                &line("NVIDIA H100 PCIe", "9.0", "580.159.04", 1),
                &libraries(&ours[..1]),
            ),
            class(
                &line("NVIDIA H100 PCIe", "9.0", "580.159.04", 1),
                &libraries(&[ours[0], "libcublas.so.12 201"]),
            ),
        ] {
            assert_ne!(other, usual);
        }
    }

    #[test]
    fn libraries_are_found_among_the_mapped_files_by_what_their_links_lead_to() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().join("libcublas.so.12.8.4");
        fs::write(&real, [0; 7]).unwrap();
        let link = folder.path().join("libcublas.so.12");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let other = folder.path().join("libcudnn_graph.so.9");
        fs::write(&other, [0; 3]).unwrap();
        let maps = format!(
            "7f00-7f01 r-xp 00000000 08:01 1    {}\n7f01-7f02 r--p 00001000 08:01 1    {}\n7f03-7f04 rw-p 0 00:00 0\n\
             7f05-7f06 r-xp 0 08:01 2    {}\n7f07-7f08 r-xp 0 08:01 3    /usr/lib/libc.so.6\n",
            link.display(),
            link.display(),
            other.display()
        );
        let found: Vec<String> = libraries(&maps).into_iter().collect();
        assert_eq!(found, ["libcublas.so.12.8.4 7", "libcudnn_graph.so.9 3"]);
    }

    #[test]
    fn of_a_long_error_the_sentence_is_told() {
        let error = "/o/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load library x.so with error: y.so.13\nhint";
        assert_eq!(first_line(error), "Failed to load library x.so with error: y.so.13");
        assert_eq!(first_line("something else "), "something else");
    }

    #[test]
    fn errors_that_mean_want_of_memory_are_known_from_others() {
        for message in [
            "Non-zero status code returned while running MatMul node. Name:'m' Status Message: /o/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal(...) Failed to allocate memory for requested buffer of size 1073741824",
            "/o/bfc_arena.cc:358 Available memory of 1048576 is smaller than requested bytes of 4194304",
            "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=/o/cuda_allocator.cc ; line=47 ; expr=cudaMalloc((void**)&p, size);",
            "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
        ] {
            assert!(is_out_of_memory(message), "{message}");
        }
        for message in [
            "CUDA failure 700: an illegal memory access was encountered",
            "Got invalid dimensions for input",
        ] {
            assert!(!is_out_of_memory(message), "{message}");
        }
    }
}
