//! What a runtime computes differently because it does not see what came before: convolutions in blocked layout.
//!
//! ONNX Runtime keeps the channels of images in blocks of 8 or 16, from the first convolution for as long as every operation can follow.
//! Most operations have the same bits in either layout. Two have not: a batch normalisation that no convolution takes in (blocked, it is
//! run as a convolution), and the addition of two activations (blocked, it is run inside one of the convolutions before it). What crosses
//! a cut arrives unblocked. So a cut is harmless where each of these operations after it finds its operands in the layout that they
//! have in the whole graph. Measured with ResNet-50 and DenseNet-121: every other cut inside a residual or dense block changes bits.

use std::collections::BTreeSet;

use crate::{
    graph::{attribute, is_onnx, makes, uses, Graph},
    proto::NodeProto,
    shapes::Shapes,
};

/// Channels in a block, by instruction set. A cut has to be harmless with all of them, as a split is the same on any machine.
const BLOCKS: [u64; 2] = [8, 16];

/// The layouts of a graph.
pub(crate) struct Layouts<'a> {
    graph: &'a Graph,
    shapes: &'a Shapes,
    again: &'a [bool],
    /// For each size of block and each node that minds: whether its operands are blocked in the whole graph.
    whole: Vec<Vec<Option<bool>>>,
}

impl<'a> Layouts<'a> {
    pub(crate) fn new(graph: &'a Graph, shapes: &'a Shapes, again: &'a [bool]) -> Self {
        let mut layouts = Self {
            graph,
            shapes,
            again,
            whole: Vec::new(),
        };
        layouts.whole = BLOCKS.iter().map(|&block| layouts.minded(0, block)).collect();
        layouts
    }

    /// Whether a node after a cut before this one finds another layout than in the whole graph.
    pub(crate) fn change_at(&self, from: usize) -> bool {
        BLOCKS.iter().zip(&self.whole).any(|(&block, whole)| {
            let after = self.minded(from, block);
            after
                .iter()
                .zip(whole.iter().skip(from))
                .any(|(after, whole)| after != whole)
        })
    }

    /// The layouts that the nodes from this one on find, if they mind.
    fn minded(&self, from: usize, block: u64) -> Vec<Option<bool>> {
        let mut walk = Walk {
            shapes: self.shapes,
            block,
            blocked: BTreeSet::new(),
            convolved: BTreeSet::new(),
        };
        let nodes = self.graph.nodes.iter().zip(self.again).skip(from);
        nodes
            .map(|(node, again)| if *again { None } else { walk.step(node) })
            .collect()
    }
}

struct Walk<'a> {
    shapes: &'a Shapes,
    block: u64,
    blocked: BTreeSet<&'a str>,
    /// Results of convolutions, and of what is folded into their weights.
    convolved: BTreeSet<&'a str>,
}

impl<'a> Walk<'a> {
    /// Goes past a node; says whether its operands are blocked, if it minds.
    fn step(&mut self, node: &'a NodeProto) -> Option<bool> {
        let operands: Vec<&str> = uses(node).filter(|name| self.shapes.constant(name).is_none()).collect();
        let all = !operands.is_empty() && operands.iter().all(|name| self.blocked.contains(name));
        let folded = matches!(operands.as_slice(), [only] if self.convolved.contains(only));
        let op = if is_onnx(node.domain()) { node.op_type() } else { "" };
        let (blocked, minds) = match op {
            "Conv" => (self.blocks(node), false),
            "MaxPool" | "AveragePool" | "GlobalMaxPool" | "GlobalAveragePool" => (self.whole_blocks(node), false),
            "BatchNormalization" => (all && (folded || self.whole_blocks(node)), !folded),
            "Add" | "Sum" | "Mul" if operands.len() > 1 => (all, op != "Mul"),
            "Add" | "Mul" => (all && folded, false),
            "Concat" => (all && operands.iter().all(|name| self.divides(name)), false),
            "Relu" | "LeakyRelu" | "Clip" | "Sigmoid" | "Tanh" | "HardSigmoid" | "Dropout" | "Identity"
            | "Upsample" | "Resize" => (all, false),
            _ => (false, false),
        };
        let first = makes(node).next();
        if blocked {
            self.blocked.extend(first);
        }
        if op == "Conv" || (folded && matches!(op, "BatchNormalization" | "Add" | "Mul")) {
            self.convolved.extend(first);
        }
        minds.then_some(all)
    }

    /// Whether a convolution is run in blocks: of images, all channels together, one by one, or in groups of whole blocks.
    fn blocks(&self, node: &NodeProto) -> bool {
        let groups = attribute(node, "group").map_or(1, |group| group.i().unsigned_abs());
        let weight = node.input.get(1).and_then(|name| self.shapes.constant(name));
        let Some([made, per_group, _, _]) = weight else {
            return false;
        };
        let divides = |channels: u64| channels.checked_rem(self.block) == Some(0);
        match groups {
            1 => true,
            _ if *per_group == 1 && *made == groups => divides(*made),
            _ => divides(per_group.saturating_mul(groups)) && made.checked_div(groups).is_some_and(divides),
        }
    }

    fn whole_blocks(&self, node: &NodeProto) -> bool {
        makes(node).next().is_some_and(|name| self.divides(name))
    }

    fn divides(&self, name: &str) -> bool {
        match self.shapes.of(name) {
            Some([_, channels, _, _]) => channels.checked_rem(self.block) == Some(0),
            _ => false,
        }
    }
}
