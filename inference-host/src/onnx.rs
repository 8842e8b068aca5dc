//! ONNX Runtime: finding the library, naming the engine class, sessions on one global thread pool. The only file that names `ort`.
//!
//! Guarantees: a missing, foreign or too old library is an error that names it, never a panic; every session shares one thread pool, because
//! several sessions with spinning pools of their own take each other's cores; the graph optimisation level is fixed, because bits
//! depend on it; and everything that bits depend on is in the engine class.

use std::{
    env,
    ffi::OsString,
    fs::File,
    io::{BufRead, BufReader},
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use half::{bf16, f16};
use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    logging::LogLevel,
    session::{builder::GraphOptimizationLevel, Session},
    value::{DynValue, PrimitiveTensorElementType, TensorElementType, ValueType},
    LoadDynamicError,
};
use partition::{DType, Loaded, Runtime, RuntimeError, Tensor};

/// Where `scripts/models.sh` puts the library, below the project or one of its folders.
const OWN_FOLDER: &str = ".runtime/onnxruntime";

#[cfg(target_os = "macos")]
const FILE_NAME: &str = "libonnxruntime.dylib";
#[cfg(target_os = "windows")]
const FILE_NAME: &str = "onnxruntime.dll";
#[cfg(not(any(target_os = "macos", target_os = "windows")))]
const FILE_NAME: &str = "libonnxruntime.so";

/// The API that is asked for, and the oldest minor version that has it.
const API_MINOR: u32 = ort::MINOR_VERSION;

/// The library of this process: ONNX Runtime allows one environment.
static LOADED: Mutex<Option<(PathBuf, OnnxRuntime)>> = Mutex::new(None);

/// Why there is no ONNX Runtime.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    #[error("no ONNX Runtime library: give --onnxruntime or FXN_ONNXRUNTIME, or run scripts/models.sh (looked for {OWN_FOLDER}/{FILE_NAME} in {searched} folders)")]
    NotFound { searched: usize },
    #[error("{path}, given by {given_by}, is not a file")]
    NotAFile { path: PathBuf, given_by: &'static str },
    #[error("{path} is no library that this machine can load: {reason}")]
    NotALibrary { path: PathBuf, reason: String },
    #[error("{path} is a library, but not ONNX Runtime: it does not export OrtGetApiBase")]
    Foreign { path: PathBuf },
    #[error("{path} is ONNX Runtime {found}, this host needs 1.{API_MINOR} or newer: give a newer one by --onnxruntime, or run scripts/models.sh")]
    TooOld { path: PathBuf, found: String },
    #[error("{path} calls itself ONNX Runtime {version}, but does not offer API {API_MINOR}: it is damaged, or a build that this host cannot use")]
    NoApi { path: PathBuf, version: String },
    #[error("failed to start ONNX Runtime from {path}")]
    Start { path: PathBuf, source: ort::Error },
    #[error("failed to read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("this process already runs ONNX Runtime from {loaded}, not {asked}")]
    AlreadyLoaded { loaded: PathBuf, asked: PathBuf },
}

/// How the process shares its cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Threads {
    /// Threads of the global pool; 0 means one a core.
    pub count: usize,
    /// Whether idle threads spin. Faster by a quarter where this process owns the machine, ruinous where hosts share it.
    pub spin: bool,
}

/// ONNX Runtime, loaded once for the life of the process. Clones share it.
#[derive(Clone, Debug)]
pub struct OnnxRuntime {
    environment: Environment,
    engine_class: String,
}

/// The library to load: the one given, `FXN_ONNXRUNTIME`, `ORT_DYLIB_PATH`, or the project's own, looked for in the current directory
/// and the executable's, and in the folders above them.
pub fn find_library(explicit: Option<&Path>) -> Result<PathBuf, LibraryError> {
    let roots = [env::current_dir().ok(), env::current_exe().ok()];
    search(explicit, env::var_os::<&str>, roots.into_iter().flatten())
}

fn search(
    explicit: Option<&Path>,
    variable: impl Fn(&'static str) -> Option<OsString>,
    roots: impl Iterator<Item = PathBuf>,
) -> Result<PathBuf, LibraryError> {
    let named = |name: &'static str| {
        variable(name)
            .filter(|value| !value.is_empty())
            .map(|value| (name, value.into()))
    };
    let given = explicit.map(|path| ("--onnxruntime", path.to_owned()));
    if let Some((given_by, path)) = given
        .or_else(|| named("FXN_ONNXRUNTIME"))
        .or_else(|| named("ORT_DYLIB_PATH"))
    {
        // What somebody asked for is never silently replaced by something else.
        return if path.is_file() {
            Ok(path)
        } else {
            Err(LibraryError::NotAFile { path, given_by })
        };
    }
    let mut searched = 0_usize;
    for root in roots {
        for folder in root.ancestors() {
            searched = searched.saturating_add(1);
            let candidate = folder.join(OWN_FOLDER).join(FILE_NAME);
            if candidate.is_file() {
                return Ok(candidate);
            }
        }
    }
    Err(LibraryError::NotFound { searched })
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
        let engine_class = format!("ort-{version}/cpu/{}/f32/opt=all/wire=f32", instruction_set());
        let runtime = Self {
            environment,
            engine_class,
        };
        *loaded = Some((path, runtime.clone()));
        Ok(runtime)
    }

    fn session(&self, graph: &Path) -> ort::Result<Session> {
        let builder = Session::builder(&self.environment)?;
        let mut builder = builder.with_optimization_level(GraphOptimizationLevel::All)?;
        builder.commit_from_file(graph)
    }
}

impl Runtime for OnnxRuntime {
    fn engine_class(&self) -> String {
        self.engine_class.clone()
    }

    fn load(&self, graph: &Path) -> Result<Box<dyn Loaded>, RuntimeError> {
        let load = |source: ort::Error| RuntimeError::Load {
            graph: graph.to_owned(),
            source: Box::new(source),
        };
        Ok(Box::new(OnnxSession {
            session: self.session(graph).map_err(load)?,
        }))
    }
}

/// A graph on ONNX Runtime. Belongs to one thread at a time.
#[derive(Debug)]
struct OnnxSession {
    session: Session,
}

impl Loaded for OnnxSession {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let failed = |source: ort::Error| RuntimeError::Run {
            source: Box::new(source),
        };
        let mut values = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            tensor.check().map_err(|source| RuntimeError::Run {
                source: Box::new(source),
            })?;
            values.push((name, to_value(&tensor).map_err(failed)?));
        }
        // In the graph's order, which the map of outputs keeps.
        let outputs = self.session.run(values).map_err(failed)?;
        outputs
            .iter()
            .map(|(name, value)| Ok((name.to_owned(), from_value(name, &value)?)))
            .collect()
    }
}

fn to_value(tensor: &Tensor) -> ort::Result<DynValue> {
    match tensor.dtype {
        DType::Float32 => value(tensor, f32::from_le_bytes),
        DType::Float64 => value(tensor, f64::from_le_bytes),
        DType::Float16 => value(tensor, f16::from_le_bytes),
        DType::Bfloat16 => value(tensor, bf16::from_le_bytes),
        DType::Int8 => value(tensor, i8::from_le_bytes),
        DType::Int16 => value(tensor, i16::from_le_bytes),
        DType::Int32 => value(tensor, i32::from_le_bytes),
        DType::Int64 => value(tensor, i64::from_le_bytes),
        DType::Uint8 => value(tensor, u8::from_le_bytes),
        DType::Uint16 => value(tensor, u16::from_le_bytes),
        DType::Uint32 => value(tensor, u32::from_le_bytes),
        DType::Uint64 => value(tensor, u64::from_le_bytes),
        DType::Bool => value(tensor, |[byte]| byte != 0),
    }
}

fn value<T, const WIDTH: usize>(tensor: &Tensor, read: fn([u8; WIDTH]) -> T) -> ort::Result<DynValue>
where
    T: PrimitiveTensorElementType + std::fmt::Debug + Clone + 'static,
{
    let shape: Vec<i64> = tensor
        .shape
        .iter()
        .map(|&length| i64::try_from(length).unwrap_or(i64::MAX))
        .collect();
    let (elements, _) = tensor.data.as_chunks::<WIDTH>();
    let elements: Vec<T> = elements.iter().map(|bytes| read(*bytes)).collect();
    Ok(ort::value::Tensor::from_array((shape, elements))?.into_dyn())
}

fn from_value(name: &str, value: &DynValue) -> Result<Tensor, RuntimeError> {
    let failed = |source: ort::Error| RuntimeError::Run {
        source: Box::new(source),
    };
    let ValueType::Tensor { ty, .. } = value.dtype() else {
        return Err(RuntimeError::DType {
            tensor: name.to_owned(),
            code: 0,
        });
    };
    let bytes = match ty {
        TensorElementType::Float32 => tensor(value, DType::Float32, |v: f32| v.to_le_bytes()),
        TensorElementType::Float64 => tensor(value, DType::Float64, |v: f64| v.to_le_bytes()),
        TensorElementType::Float16 => tensor(value, DType::Float16, |v: f16| v.to_le_bytes()),
        TensorElementType::Bfloat16 => tensor(value, DType::Bfloat16, |v: bf16| v.to_le_bytes()),
        TensorElementType::Int8 => tensor(value, DType::Int8, |v: i8| v.to_le_bytes()),
        TensorElementType::Int16 => tensor(value, DType::Int16, |v: i16| v.to_le_bytes()),
        TensorElementType::Int32 => tensor(value, DType::Int32, |v: i32| v.to_le_bytes()),
        TensorElementType::Int64 => tensor(value, DType::Int64, |v: i64| v.to_le_bytes()),
        TensorElementType::Uint8 => tensor(value, DType::Uint8, |v: u8| v.to_le_bytes()),
        TensorElementType::Uint16 => tensor(value, DType::Uint16, |v: u16| v.to_le_bytes()),
        TensorElementType::Uint32 => tensor(value, DType::Uint32, |v: u32| v.to_le_bytes()),
        TensorElementType::Uint64 => tensor(value, DType::Uint64, |v: u64| v.to_le_bytes()),
        TensorElementType::Bool => tensor(value, DType::Bool, |v: bool| [u8::from(v)]),
        _ => {
            return Err(RuntimeError::DType {
                tensor: name.to_owned(),
                code: 0,
            })
        }
    };
    bytes.map_err(failed)
}

fn tensor<T, const WIDTH: usize>(
    value: &DynValue,
    dtype: DType,
    write: impl Fn(T) -> [u8; WIDTH],
) -> ort::Result<Tensor>
where
    T: PrimitiveTensorElementType + Copy,
{
    let (shape, elements) = value.try_extract_tensor::<T>()?;
    let shape = shape.iter().map(|length| length.unsigned_abs()).collect();
    let mut data = Vec::with_capacity(elements.len().saturating_mul(WIDTH));
    for element in elements {
        data.extend_from_slice(&write(*element));
    }
    Ok(Tensor { dtype, shape, data })
}

fn log(level: LogLevel, category: &str, id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => tracing::error!(category, id, location, "onnxruntime: {message}"),
        // It warns about graphs that it will run correctly; hosts have no use for that by default.
        LogLevel::Warning => tracing::debug!(category, id, location, "onnxruntime: {message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(category, id, location, "onnxruntime: {message}"),
    }
}

/// The library's version, from the symbol version that its linker script gives every exported name (`VERS_1.31.1`). The API that would
/// tell it is out of reach without unsafe code, and a file name may lie.
fn library_version(path: &Path) -> Result<String, LibraryError> {
    let read = |source| LibraryError::Read {
        path: path.to_owned(),
        source,
    };
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(read)?);
    let mut piece = Vec::new();
    while reader.read_until(b'V', &mut piece).map_err(read)? > 0 {
        if let Some(rest) = piece.strip_prefix(b"ERS_") {
            let digits: Vec<u8> = rest
                .iter()
                .copied()
                .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
                .collect();
            if digits.contains(&b'.') {
                return Ok(String::from_utf8_lossy(&digits).into_owned());
            }
        }
        piece.clear();
    }
    // Some other build: its size at least keeps it apart from the known ones.
    let bytes = std::fs::metadata(path).map_err(read)?.len();
    Ok(format!("unknown-{bytes}"))
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
mod tests {
    use super::*;

    #[test]
    fn the_library_given_wins_over_variables_and_folders() {
        let folder = tempfile::tempdir().unwrap();
        let given = folder.path().join("given.so");
        let own = folder.path().join(OWN_FOLDER).join(FILE_NAME);
        std::fs::create_dir_all(own.parent().unwrap()).unwrap();
        std::fs::write(&given, "").unwrap();
        std::fs::write(&own, "").unwrap();
        let roots = || [folder.path().join("below/deep")].into_iter();
        let variable = |wanted: &'static str| {
            let given = given.clone();
            move |name: &'static str| (name == wanted).then(|| given.clone().into_os_string())
        };
        assert_eq!(search(Some(&given), |_| None, roots()).unwrap(), given);
        assert_eq!(search(None, variable("FXN_ONNXRUNTIME"), roots()).unwrap(), given);
        assert_eq!(search(None, variable("ORT_DYLIB_PATH"), roots()).unwrap(), given);
        assert_eq!(search(None, |_| None, roots()).unwrap(), own);
    }

    #[test]
    fn what_was_asked_for_is_never_replaced() {
        let missing = Path::new("nowhere/libonnxruntime.so");
        let found = search(Some(missing), |_| None, [].into_iter());
        assert!(matches!(
            found,
            Err(LibraryError::NotAFile {
                given_by: "--onnxruntime",
                ..
            })
        ));
        assert!(matches!(
            search(None, |_| None, [].into_iter()),
            Err(LibraryError::NotFound { searched: 0 })
        ));
    }

    #[test]
    fn a_missing_or_foreign_library_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let missing = OnnxRuntime::load(&folder.path().join("missing.so"));
        assert!(matches!(missing, Err(LibraryError::Read { .. })));
        let foreign = folder.path().join("foreign.so");
        std::fs::write(&foreign, "not a library").unwrap();
        let refused = OnnxRuntime::load(&foreign);
        assert!(matches!(
            refused,
            Err(LibraryError::NotALibrary { .. } | LibraryError::AlreadyLoaded { .. })
        ));
    }

    #[test]
    fn the_version_is_read_out_of_the_symbols() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("lib.so");
        std::fs::write(&library, b"\x7fELF V VERSION\0VERS_1.22.1\0VV").unwrap();
        assert_eq!(library_version(&library).unwrap(), "1.22.1");
        std::fs::write(&library, b"no version").unwrap();
        assert_eq!(library_version(&library).unwrap(), "unknown-10");
    }
}
