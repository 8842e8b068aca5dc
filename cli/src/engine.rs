//! ONNX Runtime on this machine.

use std::path::PathBuf;

use clap::Args;
use inference_host::onnx::{find_library, Device, OnnxRuntime, DEVICE_MEMORY_BYTES_MAX};
use partition::Runtime;

/// Where the library is.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct Library {
    /// Library of ONNX Runtime [default: FXN_ONNXRUNTIME, ORT_DYLIB_PATH, then .runtime/onnxruntime of the project]
    #[arg(long, value_name = "FILE")]
    pub(crate) onnxruntime: Option<PathBuf>,
}

impl Library {
    pub(crate) fn load(&self) -> anyhow::Result<OnnxRuntime> {
        let library = find_library(self.onnxruntime.as_deref())?;
        Ok(OnnxRuntime::load(&library)?)
    }

    /// What decides the bits here, on this device.
    pub(crate) fn engine_class(&self, device: Device) -> anyhow::Result<String> {
        let runtime = self.load()?.on(device, DEVICE_MEMORY_BYTES_MAX)?;
        Ok(runtime.engine_class())
    }
}
