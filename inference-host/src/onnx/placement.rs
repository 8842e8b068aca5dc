//! Which nodes of a graph run where, as ONNX Runtime says while it loads the graph, and whether that is what was asked for.
//!
//! ONNX Runtime leaves nodes to the CPU where a device has no kernel for them, without a word to its caller. A stage that was sold as
//! computed on a GPU must not be computed elsewhere, so whatever is not known to be on the device refuses the graph. Exempt is what CUDA itself
//! leaves to the CPU on purpose: moving shapes and indices about, which is exact integer work on a few numbers, and cheaper where it is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Operators of shapes and indices. None of them calculates with a model's numbers.
const ALLOWED: [&str; 16] = [
    "Cast",
    "Concat",
    "Constant",
    "ConstantOfShape",
    "Expand",
    "Gather",
    "GatherElements",
    "Identity",
    "Range",
    "Reshape",
    "Shape",
    "Size",
    "Slice",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];
/// Nodes that an error names.
const NAMED_MAX: usize = 5;

const HEADING: &str = "Node placements";
const ALL: &str = "All nodes placed on [";
const SOME: &str = "Node(s) placed on [";

/// Why a graph is not where it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error(
        "ONNX Runtime does not say where the nodes of the graph run, so it is not known that they run on the device"
    )]
    Unknown,
    #[error("{count} nodes of the graph would run on {provider} instead of the device, among them {nodes}: this stage cannot be served there")]
    Elsewhere {
        provider: String,
        count: usize,
        nodes: String,
    },
}

/// Listens to what is logged while a graph is loaded. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Listener(Arc<Mutex<Heard>>);

#[derive(Debug, Default)]
struct Heard {
    began: bool,
    provider: Option<String>,
    /// Nodes, as `Op (name)`, with their provider.
    nodes: Vec<(String, String)>,
    /// Everything is on one provider.
    all: Option<String>,
    deaf: bool,
}

impl Listener {
    /// Takes a message of the log. Messages that are not about placement end the list.
    pub(super) fn hear(&self, message: &str) {
        let mut heard = self.heard();
        if heard.deaf {
            return;
        }
        let text = message.trim();
        let provider = |start: &str| Some(text.strip_prefix(start)?.split_once(']')?.0.to_owned());
        if text == HEADING {
            *heard = Heard {
                began: true,
                ..Heard::default()
            };
        } else if !heard.began {
        } else if let Some(all) = provider(ALL) {
            heard.all = Some(all);
        } else if let Some(some) = provider(SOME) {
            heard.provider = Some(some);
        } else if let (Some(provider), Some(_)) = (heard.provider.clone(), node_operator(text)) {
            heard.nodes.push((text.to_owned(), provider));
        } else {
            heard.provider = None;
        }
    }

    /// The graph is loaded; what is logged from now on is about runs.
    pub(super) fn stop(&self) {
        self.heard().deaf = true;
    }

    /// Whether all nodes are on this provider, except those that are allowed not to be.
    pub(super) fn check(&self, expected: &str) -> Result<(), PlacementError> {
        let heard = self.heard();
        match &heard.all {
            Some(provider) if provider == expected => return Ok(()),
            Some(provider) => {
                return Err(PlacementError::Elsewhere {
                    provider: provider.clone(),
                    count: 0,
                    nodes: "all of them".to_owned(),
                })
            }
            None => {}
        }
        if !heard.nodes.iter().any(|(_, provider)| provider == expected) {
            return Err(PlacementError::Unknown);
        }
        let allowed = |node: &str| node_operator(node).is_some_and(|operator| ALLOWED.contains(&operator));
        let wrong = heard.nodes.iter().filter(|(_, provider)| provider != expected);
        let wrong: Vec<&(String, String)> = wrong.filter(|(node, _)| !allowed(node)).collect();
        let Some((_, provider)) = wrong.first() else {
            return Ok(());
        };
        let named: Vec<&str> = wrong.iter().take(NAMED_MAX).map(|(node, _)| node.as_str()).collect();
        Err(PlacementError::Elsewhere {
            provider: provider.clone(),
            count: wrong.len(),
            nodes: named.join(", "),
        })
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Every change is complete in itself.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The operator of a node that is written `Op (name)`.
fn node_operator(text: &str) -> Option<&str> {
    let (operator, name) = text.split_once(" (")?;
    (name.ends_with(')') && operator.chars().all(|letter| letter.is_alphanumeric() || letter == '_'))
        .then_some(operator)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CUDA: &str = "CUDAExecutionProvider";

    fn heard(messages: &[&str]) -> Listener {
        let listener = Listener::default();
        messages.iter().for_each(|message| listener.hear(message));
        listener
    }

    #[test]
    fn a_graph_that_is_all_on_the_device_passes() {
        let all = heard(&[
            "Initializing session.",
            "Node placements",
            " All nodes placed on [CUDAExecutionProvider]. Number of nodes: 12",
        ]);
        assert_eq!(all.check(CUDA), Ok(()));
    }

    #[test]
    fn only_shapes_and_indices_may_be_left_to_the_processor() {
        let mixed = |operator: &str| {
            let node = format!("  {operator} (/encoder/{operator}_1)");
            heard(&[
                "Node placements",
                " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 2",
                "  Shape (/Shape)",
                &node,
                " Node(s) placed on [CUDAExecutionProvider]. Number of nodes: 1",
                "  MatMul (/MatMul)",
                "Done saving OrtValues (something that is no node)",
            ])
        };
        for operator in ALLOWED {
            assert_eq!(mixed(operator).check(CUDA), Ok(()), "{operator}");
        }
        for operator in [
            "MatMul",
            "LayerNormalization",
            "Add",
            "Softmax",
            "NhwcConv",
            "FusedMatMul",
        ] {
            let refused = mixed(operator).check(CUDA).unwrap_err().to_string();
            let expected = format!(
                "1 nodes of the graph would run on CPUExecutionProvider instead of the device, among them {operator} \
                 (/encoder/{operator}_1): this stage cannot be served there"
            );
            assert_eq!(refused, expected);
        }
    }

    #[test]
    fn what_is_not_said_is_not_believed() {
        for messages in [
            &[][..],
            &["Node placements"],
            &[
                "Node placements",
                " Node(s) placed on [CPUExecutionProvider]. Number of nodes: 1",
                "  Shape (a)",
            ],
            &["All nodes placed on [CUDAExecutionProvider]. Number of nodes: 3"],
        ] {
            assert_eq!(
                heard(messages).check(CUDA),
                Err(PlacementError::Unknown),
                "{messages:?}"
            );
        }
        let cpu = heard(&[
            HEADING,
            "All nodes placed on [CPUExecutionProvider]. Number of nodes: 3",
        ]);
        assert!(matches!(cpu.check(CUDA), Err(PlacementError::Elsewhere { .. })));
        // A run that speaks of placements, whatever for, changes nothing.
        cpu.stop();
        cpu.hear(HEADING);
        cpu.hear("All nodes placed on [CUDAExecutionProvider]. Number of nodes: 3");
        assert!(cpu.check(CUDA).is_err());
    }
}
