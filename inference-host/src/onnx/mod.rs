//! ONNX Runtime: the library, the engine class, sessions on one global thread pool. Only the files of this folder name `ort`.
//!
//! Guarantees: a missing, foreign or too old library is an error that names it, never a panic (`library`); every session shares one thread pool,
//! because several sessions with spinning pools of their own take each other's cores; the graph optimisation level is fixed, because bits
//! depend on it; everything that bits depend on is in the engine class; a stage that is to run on a GPU runs there or not at all (`cuda`,
//! `placement`). `session` runs graphs, `tensor` is their bytes, `gpus` what this machine has.

mod cuda;
mod device;
mod gpus;
mod library;
mod placement;
mod session;
mod tensor;

use std::{
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
    session::{
        builder::{GraphOptimizationLevel, SessionBuilder},
        Session,
    },
    LoadDynamicError,
};
use partition::{Loaded, Runtime, RuntimeError};

pub use self::{
    cuda::CudaError,
    device::{Device, UnknownDevice},
    gpus::{Gpu, GpuError},
    library::{find_library, LibraryError},
    placement::PlacementError,
};
use self::{
    cuda::{is_out_of_memory, Cuda, PROVIDER},
    library::library_version,
    placement::Listener,
    session::OnnxSession,
};

/// What a stage may take of a GPU's memory where nobody says otherwise.
pub const DEVICE_MEMORY_BYTES_MAX: u64 = 16 << 30;

/// The library of this process: ONNX Runtime allows one environment.
static LOADED: Mutex<Option<(PathBuf, OnnxRuntime)>> = Mutex::new(None);

/// How the process shares its cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Threads {
    /// Threads of the global pool; 0 means one a core.
    pub count: usize,
    /// Whether idle threads spin. Faster by a quarter where this process owns the machine, ruinous where hosts share it.
    pub spin: bool,
}

/// ONNX Runtime, loaded once for the life of the process, on the CPU or on a GPU. Clones share it.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    environment: Environment,
    library: PathBuf,
    version: String,
    engine_class: String,
    /// None: the CPU computes.
    cuda: Option<Cuda>,
}

fn start(path: &Path, threads: Threads) -> Result<Environment, LibraryError> {
    let path = path.to_owned();
    let builder = ort::init_from(&path).map_err(|error| match error {
        LoadDynamicError::Dlopen { error, path } => LibraryError::NotALibrary {
            path,
            reason: error.to_string(),
        },
        LoadDynamicError::MissingApi { path } => LibraryError::Foreign { path },
        LoadDynamicError::BadVersion { version_str, path } => LibraryError::TooOld {
            path,
            found: version_str,
        },
        LoadDynamicError::InvalidVersionString => LibraryError::Foreign { path: path.clone() },
    })?;
    let failed = |source| LibraryError::Start {
        path: path.clone(),
        source,
    };
    let pool = GlobalThreadPoolOptions::default()
        .with_intra_threads(threads.count)
        .and_then(|pool| pool.with_inter_threads(1))
        .and_then(|pool| pool.with_spin_control(threads.spin))
        .map_err(failed)?;
    let builder = builder
        .with_name("fxn")
        .with_global_thread_pool(pool)
        .with_telemetry(false);
    builder.with_logger(Arc::new(log)).build().map_err(failed)
}

impl OnnxRuntime {
    /// Loads the library with the default threads: one a core, none spinning.
    pub fn load(library: &Path) -> Result<Self, LibraryError> {
        Self::load_with(library, Threads::default())
    }

    /// Loads the library. A second call for the same library gives the first one's runtime, threads included.
    pub fn load_with(library: &Path, threads: Threads) -> Result<Self, LibraryError> {
        let path = library.canonicalize().map_err(|source| LibraryError::Read {
            path: library.to_owned(),
            source,
        })?;
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((loaded, runtime)) = loaded.as_ref() {
            return match *loaded == path {
                true => Ok(runtime.clone()),
                false => Err(LibraryError::AlreadyLoaded {
                    loaded: loaded.clone(),
                    asked: path,
                }),
            };
        }
        let version = library_version(&path)?;
        // First of all: any other call would look for a library of its own and panic where it finds none.
        // It panics where a library has the right name and nothing behind it.
        let started = catch_unwind(|| start(&path, threads));
        let environment = started.unwrap_or_else(|_| {
            let (path, version) = (path.clone(), version.clone());
            Err(LibraryError::NoApi { path, version })
        })?;
        // With a logger of our own it starts at the most verbose level, at a price for every node.
        environment.set_log_level(LogLevel::Warning);
        let runtime = Self {
            environment,
            library: path.clone(),
            engine_class: format!("ort-{version}/cpu/{}/f32/opt=all/wire=f32", instruction_set()),
            version,
            cuda: None,
        };
        *loaded = Some((path, runtime.clone()));
        Ok(runtime)
    }

    /// The same library on a device, which must show that it computes. `device_memory_bytes_max` bounds what each stage takes of a GPU.
    pub fn on(&self, device: Device, device_memory_bytes_max: u64) -> Result<Self, CudaError> {
        let Device::Cuda(index) = device else {
            let cuda = None;
            let engine_class = format!("ort-{}/cpu/{}/f32/opt=all/wire=f32", self.version, instruction_set());
            return Ok(Self {
                cuda,
                engine_class,
                ..self.clone()
            });
        };
        let cuda = Cuda::open(&self.environment, &self.library, index, device_memory_bytes_max)?;
        let engine_class = format!("ort-{}/{}/f32/tf32=off/opt=all/wire=f32", self.version, cuda.class());
        Ok(Self {
            cuda: Some(cuda),
            engine_class,
            ..self.clone()
        })
    }

    fn builder(&self) -> ort::Result<SessionBuilder> {
        let builder = Session::builder(&self.environment)?;
        Ok(builder.with_optimization_level(GraphOptimizationLevel::All)?)
    }

    /// A graph on a GPU: all of it, or, where the graph moves shapes about, all of it but that.
    fn on_gpu(&self, cuda: &Cuda, graph: &Path) -> Result<Session, OnGpu> {
        let builder = || -> ort::Result<SessionBuilder> {
            let builder = self.builder()?.with_execution_providers([cuda.provider()])?;
            Ok(builder.with_deterministic_compute(true)?)
        };
        let strict = || builder()?.with_disable_cpu_fallback()?.commit_from_file(graph);
        let refused = match strict() {
            Ok(session) => return Ok(session),
            Err(error) if is_out_of_memory(error.message()) => return Err(error.into()),
            Err(error) => error,
        };
        tracing::debug!(graph = %graph.display(), %refused, "not all nodes run on the device, so each is looked at");
        let listener = Listener::default();
        let ear = listener.clone();
        let hear = move |level: LogLevel, category: &str, id: &str, location: &str, message: &str| {
            ear.hear(message);
            log(level, category, id, location, message);
        };
        let load = || -> ort::Result<Session> {
            let listening = builder()?.with_logger(Arc::new(hear))?;
            listening.with_log_level(LogLevel::Verbose)?.commit_from_file(graph)
        };
        let session = load();
        listener.stop();
        let session = session?;
        listener.check(PROVIDER)?;
        Ok(session)
    }
}

/// Why a graph is not on the GPU.
#[derive(Debug, thiserror::Error)]
enum OnGpu {
    #[error(transparent)]
    Onnx(#[from] ort::Error),
    #[error(transparent)]
    Placement(#[from] PlacementError),
}

impl Runtime for OnnxRuntime {
    fn engine_class(&self) -> String {
        self.engine_class.clone()
    }

    fn batches_keep_bits(&self) -> bool {
        self.cuda.is_none()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        let load = |source: Box<dyn std::error::Error + Send + Sync>| RuntimeError::Load {
            graph: graph.to_owned(),
            source,
        };
        let session = match &self.cuda {
            None => self.builder().and_then(|mut builder| builder.commit_from_file(graph)),
            Some(cuda) => {
                let session = self.on_gpu(cuda, graph).map_err(|error| load(Box::new(error)))?;
                let bound = OnnxSession::bound(session).map_err(|error| load(Box::new(error)))?;
                return Ok(Box::new(bound));
            }
        };
        Ok(Box::new(OnnxSession::on_cpu(
            session.map_err(|error| load(Box::new(error)))?,
        )))
    }
}

fn log(level: LogLevel, category: &str, id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(category, id, location, "onnxruntime: {message}"),
        // It warns about graphs that it will run correctly; hosts have no use for that by default.
        LogLevel::Warning => tracing::debug!(category, id, location, "onnxruntime: {message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, id, location, "onnxruntime: {message}"),
    }
}

/// What the kernels of this machine choose by, coarse to fine.
pub fn instruction_set() -> String {
    #[cfg(target_arch = "x86_64")]
    {
        let mut set = if is_x86_feature_detected!("avx512f") {
            "avx512".to_owned()
        } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            "avx2+fma".to_owned()
        } else if is_x86_feature_detected!("avx") {
            "avx".to_owned()
        } else {
            "sse2".to_owned()
        };
        if is_x86_feature_detected!("avx512vnni") {
            set.push_str("+vnni");
        }
        // The standard library cannot tell yet.
        if std::fs::read_to_string("/proc/cpuinfo").is_ok_and(|facts| facts.contains("amx_tile")) {
            set.push_str("+amx");
        }
        set
    }
    #[cfg(not(target_arch = "x86_64"))]
    env::consts::ARCH.to_owned()
}

#[cfg(test)]
mod tests;
