//! A loaded graph, and its runs.
//!
//! On the CPU every run makes its own values. On a device, inputs and outputs are bound: an input crosses to the device once, when it is bound,
//! and the buffers on this side are kept for the next run of the same shapes. Which shapes those are, the batches decide, so only the last few
//! are kept.

use std::collections::VecDeque;

use ort::{
    logging::LogLevel,
    memory::MemoryInfo,
    session::{IoBinding, NoSelectedOutputs, RunOptions, Session},
    value::DynTensor,
};
use partition::{Loaded, RuntimeError, Tensor};

use super::{
    cuda::is_out_of_memory,
    tensor::{element_type, fill, from_value, to_value},
};

/// Shapes whose buffers are kept, per session. Rows of texts come in many lengths, and batches of full ones are all alike.
const SHAPES_MAX: usize = 16;

/// A graph on ONNX Runtime. Belongs to one thread at a time.
#[derive(Debug)]
pub(super) struct OnnxSession {
    session: Session,
    /// Only where inputs and outputs are bound.
    bound: Option<Bound>,
}

/// The buffers of bound runs.
struct Bound {
    options: RunOptions<NoSelectedOutputs>,
    /// Used most recently last.
    shapes: VecDeque<Buffers>,
}

/// Everything that runs of the same shapes share.
#[derive(Debug)]
struct Buffers {
    /// Names, element types and shapes of the inputs.
    key: Vec<(String, partition::DType, Vec<u64>)>,
    binding: IoBinding,
    inputs: Vec<DynTensor>,
    /// Whether the outputs are bound to buffers as well. Before the first run nobody knows how large they are.
    outputs: Outputs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outputs {
    Unknown,
    Kept,
    /// They differ though the inputs have the same shapes.
    Varying,
}

fn failed(error: ort::Error) -> RuntimeError {
    match is_out_of_memory(error.message()) {
        true => RuntimeError::OutOfMemory {
            reason: error.message().to_owned(),
        },
        false => RuntimeError::Run {
            source: Box::new(error),
        },
    }
}

impl OnnxSession {
    pub(super) fn on_cpu(session: Session) -> Self {
        Self { session, bound: None }
    }

    pub(super) fn bound(session: Session) -> ort::Result<Self> {
        let mut options = RunOptions::new()?;
        // The session was loaded with all its log, which would go on with every node of every run.
        options.set_log_level(LogLevel::Warning)?;
        Ok(Self {
            session,
            bound: Some(Bound {
                options,
                shapes: VecDeque::new(),
            }),
        })
    }
}

impl std::fmt::Debug for Bound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bound")
            .field("shapes", &self.shapes)
            .finish_non_exhaustive()
    }
}

impl Loaded for OnnxSession {
    fn run(&mut self, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        for (_, tensor) in &inputs {
            tensor.check().map_err(|source| RuntimeError::Run {
                source: Box::new(source),
            })?;
        }
        match &mut self.bound {
            Some(bound) => bound.run(&mut self.session, &inputs),
            None => run(&mut self.session, inputs),
        }
    }
}

fn run(session: &mut Session, inputs: Vec<(String, Tensor)>) -> Result<Vec<(String, Tensor)>, RuntimeError> {
    let mut values = Vec::with_capacity(inputs.len());
    for (name, tensor) in inputs {
        values.push((name, to_value(&tensor).map_err(failed)?));
    }
    // In the graph's order, which the map of outputs keeps.
    let outputs = session.run(values).map_err(failed)?;
    outputs
        .iter()
        .map(|(name, value)| Ok((name.to_owned(), from_value(name, &value)?)))
        .collect()
}

impl Bound {
    fn run(
        &mut self,
        session: &mut Session,
        inputs: &[(String, Tensor)],
    ) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        let mut buffers = self.take(session, inputs).map_err(failed)?;
        let mut result = buffers.run(session, inputs, &self.options);
        if result.is_err() && buffers.outputs == Outputs::Kept {
            // They may not fit this time: then they are left to the session, for good.
            buffers.leave_outputs(session, Outputs::Varying).map_err(failed)?;
            result = buffers.run(session, inputs, &self.options);
        }
        let outputs = result?;
        if buffers.outputs == Outputs::Unknown {
            buffers.keep_outputs(session, &outputs).map_err(failed)?;
        }
        self.shapes.push_back(buffers);
        Ok(outputs)
    }

    /// The buffers for these inputs, which are put back after a run that went well.
    fn take(&mut self, session: &Session, inputs: &[(String, Tensor)]) -> ort::Result<Buffers> {
        let same = |buffers: &Buffers| {
            let mut pairs = buffers.key.iter().zip(inputs);
            buffers.key.len() == inputs.len()
                && pairs.all(|((name, dtype, shape), (given, tensor))| {
                    name == given && *dtype == tensor.dtype && *shape == tensor.shape
                })
        };
        if let Some(known) = self.shapes.iter().position(same).and_then(|at| self.shapes.remove(at)) {
            return Ok(known);
        }
        while self.shapes.len() >= SHAPES_MAX {
            self.shapes.pop_front();
        }
        Buffers::new(session, inputs)
    }
}

impl Buffers {
    fn new(session: &Session, inputs: &[(String, Tensor)]) -> ort::Result<Self> {
        let buffer = |(_, tensor): &(String, Tensor)| {
            DynTensor::new(session.allocator(), element_type(tensor.dtype), lengths(&tensor.shape))
        };
        let key = |(name, tensor): &(String, Tensor)| (name.clone(), tensor.dtype, tensor.shape.clone());
        let mut buffers = Self {
            key: inputs.iter().map(key).collect(),
            binding: session.create_binding()?,
            inputs: inputs.iter().map(buffer).collect::<ort::Result<_>>()?,
            outputs: Outputs::Unknown,
        };
        buffers.leave_outputs(session, Outputs::Unknown)?;
        Ok(buffers)
    }

    /// Lets the session make the outputs, in memory of this side.
    fn leave_outputs(&mut self, session: &Session, outputs: Outputs) -> ort::Result<()> {
        self.binding.clear_outputs();
        for output in session.outputs() {
            self.binding
                .bind_output_to_device(output.name(), &MemoryInfo::default())?;
        }
        self.outputs = outputs;
        Ok(())
    }

    /// Buffers for outputs as large as these.
    fn keep_outputs(&mut self, session: &Session, outputs: &[(String, Tensor)]) -> ort::Result<()> {
        self.binding.clear_outputs();
        for (name, tensor) in outputs {
            let buffer = DynTensor::new(session.allocator(), element_type(tensor.dtype), lengths(&tensor.shape))?;
            self.binding.bind_output(name.as_str(), buffer)?;
        }
        self.outputs = Outputs::Kept;
        Ok(())
    }

    fn run(
        &mut self,
        session: &mut Session,
        inputs: &[(String, Tensor)],
        options: &RunOptions<NoSelectedOutputs>,
    ) -> Result<Vec<(String, Tensor)>, RuntimeError> {
        for (buffer, (name, tensor)) in self.inputs.iter_mut().zip(inputs) {
            fill(buffer, tensor).map_err(failed)?;
            self.binding.bind_input(name.as_str(), &*buffer).map_err(failed)?;
        }
        let outputs = session
            .run_binding_with_options(&self.binding, options)
            .map_err(failed)?;
        outputs
            .iter()
            .map(|(name, value)| Ok((name.to_owned(), from_value(name, &value)?)))
            .collect()
    }
}

fn lengths(shape: &[u64]) -> Vec<i64> {
    let length = |&length: &u64| i64::try_from(length).unwrap_or(i64::MAX);
    shape.iter().map(length).collect()
}

/// The smallest graph that needs a library of kernels: an operator on a tensor and that tensor itself, with an answer that is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    operator: &'static str,
    /// Lengths of the input's axes, and of the output's.
    axes: [&'static [u8]; 2],
    input: &'static [f32],
    output: &'static [f32],
}

/// Needs the library of linear algebra, as every model does.
pub(super) const PRODUCT: Probe = Probe {
    operator: "MatMul",
    axes: [&[2, 2], &[2, 2]],
    input: &[1.0, 2.0, 3.0, 4.0],
    output: &[7.0, 10.0, 15.0, 22.0],
};
/// Needs the library of convolutions, which is loaded when it is first needed.
pub(super) const CONVOLUTION: Probe = Probe {
    operator: "Conv",
    axes: [&[1, 1, 3, 3], &[1, 1, 1, 1]],
    input: &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0],
    output: &[285.0],
};

impl Probe {
    /// Runs the graph and sees that the answer is right.
    pub(super) fn run(&self, session: &mut Session) -> Result<(), RuntimeError> {
        let shape = self.axes[0].iter().map(|length| u64::from(*length)).collect();
        let input = Tensor::from_f32(shape, self.input).map_err(|source| RuntimeError::Run {
            source: Box::new(source),
        })?;
        let output = run(session, vec![("x".to_owned(), input)])?;
        let found = output.first().and_then(|(_, tensor)| tensor.to_f32());
        match found.as_deref() == Some(self.output) {
            true => Ok(()),
            false => Err(RuntimeError::Run {
                source: format!("{} gives {found:?}, {:?} is right", self.operator, self.output).into(),
            }),
        }
    }

    /// The ONNX file, as bytes.
    pub(super) fn model(&self) -> Vec<u8> {
        const FLOAT: u8 = 1;
        // Fields of protobuf, all of them shorter than 128 bytes.
        let field = |number: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap_or(0x7f);
            [&[number << 3 | 2, length], content].concat()
        };
        let number = |of: u8, value: u8| vec![of << 3, value];
        let value = |name: &[u8], axes: &[u8]| {
            let axes: Vec<u8> = axes.iter().flat_map(|length| field(1, &number(1, *length))).collect();
            let kind = field(1, &[number(1, FLOAT), field(2, &axes)].concat());
            [field(1, name), field(2, &kind)].concat()
        };
        let operator = field(4, self.operator.as_bytes());
        let node = [field(1, b"x"), field(1, b"x"), field(2, b"y"), operator].concat();
        let [input, output] = self.axes;
        let graph = [
            field(1, &node),
            field(2, b"probe"),
            field(11, &value(b"x", input)),
            field(12, &value(b"y", output)),
        ];
        [number(1, 8), field(7, &graph.concat()), field(8, &number(2, 13))].concat()
    }
}
