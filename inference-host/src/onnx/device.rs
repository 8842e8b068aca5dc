//! Where a stage runs.

use std::{fmt, str::FromStr};

use serde::{de, Deserialize, Deserializer};

/// More than any machine has.
const INDEX_MAX: u32 = 63;

/// What computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// A GPU of NVIDIA, by the number that CUDA gives it.
    Cuda(u32),
}

/// A text that names no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no device: write cpu, cuda or cuda:N, with N from 0 to {INDEX_MAX}")]
pub struct UnknownDevice {
    found: String,
}

impl FromStr for Device {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownDevice { found: text.to_owned() };
        match text.split_once(':') {
            None if text == "cpu" => Ok(Self::Cpu),
            None if text == "cuda" => Ok(Self::Cuda(0)),
            // A sign or a leading zero would be read, but is none of the ways to write it.
            Some(("cuda", number)) => match number.parse::<u32>() {
                Ok(index) if index <= INDEX_MAX && index.to_string() == number => Ok(Self::Cuda(index)),
                _ => Err(unknown()),
            },
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl<'de> Deserialize<'de> for Device {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_read_and_written_the_same_way() {
        for (text, device, written) in [
            ("cpu", Device::Cpu, "cpu"),
            ("cuda", Device::Cuda(0), "cuda:0"),
            ("cuda:7", Device::Cuda(7), "cuda:7"),
        ] {
            assert_eq!(text.parse(), Ok(device));
            assert_eq!(device.to_string(), written);
        }
        for wrong in [
            "", "CPU", "gpu", "cpu:0", "cuda:", "cuda:-1", "cuda:+1", "cuda:01", "cuda:64", "cuda:1:2", "cuda 0",
            "rocm",
        ] {
            let error = wrong.parse::<Device>().unwrap_err().to_string();
            assert_eq!(
                error,
                format!("{wrong:?} is no device: write cpu, cuda or cuda:N, with N from 0 to 63")
            );
        }
    }
}
