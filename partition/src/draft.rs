//! What each stage consists of: its nodes, what it receives, what it sends.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    cost,
    cut::{self, Ground, Position},
    error::SplitError,
    graph::{makes, uses, Graph},
    manifest::{TensorSpec, STAGES_MAX},
    options::{SplitOptions, Stages},
    plan::{self, Terrain},
    shapes::Shapes,
};

/// A stage before it is written.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) first_node: usize,
    /// Ascending; includes what the stage computes again for itself.
    pub(crate) nodes: Vec<usize>,
    pub(crate) receives: Vec<TensorSpec>,
    pub(crate) sends: Vec<TensorSpec>,
    pub(crate) feeds: Vec<String>,
    pub(crate) cost: u64,
    /// Bytes per row of the activations that it receives, at the probe's length.
    pub(crate) crossing_bytes: u64,
}

impl Draft {
    /// The whole graph as one stage.
    pub(crate) fn whole(graph: &Graph, outputs: &[TensorSpec]) -> Self {
        let nodes = (0..graph.nodes.len()).collect();
        Self::new(graph, 0, nodes, graph.inputs.clone(), outputs.to_vec())
    }

    fn new(
        graph: &Graph,
        first_node: usize,
        nodes: Vec<usize>,
        receives: Vec<TensorSpec>,
        sends: Vec<TensorSpec>,
    ) -> Self {
        let used: BTreeSet<&str> = nodes.iter().flat_map(|&node| uses(&graph.nodes[node])).collect();
        let names = receives.iter().map(|spec| &spec.name);
        let feeds = names.filter(|name| used.contains(name.as_str())).cloned().collect();
        Self {
            first_node,
            nodes,
            receives,
            sends,
            feeds,
            cost: 1,
            crossing_bytes: 0,
        }
    }
}

/// Plans cuts and says what every stage consists of.
pub(crate) struct Planner<'a> {
    graph: &'a Graph,
    options: &'a SplitOptions,
    outputs: &'a [TensorSpec],
    costs: Vec<u64>,
    nodes: Nodes<'a>,
    ground: Ground,
}

impl<'a> Planner<'a> {
    pub(crate) fn new(graph: &'a Graph, shapes: &Shapes, options: &'a SplitOptions, outputs: &'a [TensorSpec]) -> Self {
        let again = cut::rematerialised(graph, shapes);
        let costs = cost::of_nodes(graph, shapes);
        let ground = cut::survey(graph, shapes, &again, &costs);
        Self {
            graph,
            options,
            outputs,
            costs,
            nodes: Nodes::new(graph, again),
            ground,
        }
    }

    /// The best plan without cuts before these nodes.
    pub(crate) fn plan(&self, forbidden: &BTreeSet<usize>) -> Result<Vec<Draft>, SplitError> {
        let allowed = |position: &&Position| !forbidden.contains(&position.node);
        let positions: Vec<&Position> = self.ground.positions.iter().filter(allowed).collect();
        let bytes_min = self.options.external_bytes_min;
        let weight_bytes = |from: usize, to: &[usize]| self.nodes.weight_bytes(from, to, bytes_min);
        let terrain = Terrain::new(&positions, &self.costs, weight_bytes);
        let cuts = match self.options.stages {
            Stages::Count(stages) => {
                let refused = || SplitError::TooManyStages {
                    stages,
                    positions: positions.len(),
                    obstacles: self.ground.obstacles,
                };
                plan::stages(&terrain, stages).ok_or_else(refused)?
            }
            Stages::MaxBytes(limit) => plan::within_bytes(&terrain, limit, STAGES_MAX)?,
        };
        // Point 0 is the begin of the graph, point n is the n-th position.
        let cuts = cuts
            .into_iter()
            .filter_map(|point| positions.get(point.checked_sub(1)?));
        Ok(self.drafts(&cuts.copied().collect::<Vec<_>>()))
    }

    fn drafts(&self, cuts: &[&Position]) -> Vec<Draft> {
        let graph = self.graph;
        let mut starts = vec![0];
        starts.extend(cuts.iter().map(|position| position.node));
        let ends: Vec<_> = starts.iter().skip(1).copied().chain([graph.nodes.len()]).collect();
        let members: Vec<_> = starts
            .iter()
            .zip(&ends)
            .map(|(&from, &to)| self.nodes.of_stage(from, to))
            .collect();
        let mut drafts: Vec<Draft> = Vec::with_capacity(members.len());
        for (index, stage) in members.iter().enumerate() {
            let later = members.iter().skip(index.saturating_add(1)).flatten();
            let needed: BTreeSet<&str> = later.flat_map(|&node| uses(&graph.nodes[node])).collect();
            let sends = match cuts.get(index) {
                None => self.outputs.to_vec(),
                Some(position) => {
                    let inputs = graph.inputs.iter().filter(|input| needed.contains(input.name.as_str()));
                    position.crossing.iter().chain(inputs).cloned().collect()
                }
            };
            let receives = drafts
                .last()
                .map_or_else(|| graph.inputs.clone(), |before| before.sends.clone());
            let before = index.checked_sub(1).and_then(|before| cuts.get(before));
            drafts.push(Draft {
                cost: cut::sum(&self.costs[starts[index]..ends[index]]),
                crossing_bytes: before.map_or(0, |position| position.bytes),
                ..Draft::new(graph, starts[index], stage.iter().copied().collect(), receives, sends)
            });
        }
        drafts
    }

    /// Everything from where a stage begins to the end, as one stage.
    pub(crate) fn rest(&self, from: &Draft) -> Draft {
        let nodes = self.nodes.of_stage(from.first_node, self.graph.nodes.len());
        let nodes = nodes.into_iter().collect();
        let (receives, sends) = (from.receives.clone(), self.outputs.to_vec());
        Draft::new(self.graph, from.first_node, nodes, receives, sends)
    }
}

/// Which nodes a stage needs, what it computes again included.
struct Nodes<'a> {
    graph: &'a Graph,
    again: Vec<bool>,
    makers: BTreeMap<&'a str, usize>,
}

impl<'a> Nodes<'a> {
    fn new(graph: &'a Graph, again: Vec<bool>) -> Self {
        let pairs = graph
            .nodes
            .iter()
            .enumerate()
            .flat_map(|(index, node)| makes(node).map(move |name| (name, index)));
        Self {
            graph,
            again,
            makers: pairs.collect(),
        }
    }

    fn of_stage(&self, from: usize, to: usize) -> BTreeSet<usize> {
        let mut members = BTreeSet::new();
        self.extend(&mut members, from, to);
        members
    }

    /// Adds the nodes `from..to` and everything that they need computed again.
    fn extend(&self, members: &mut BTreeSet<usize>, from: usize, to: usize) {
        let mut pending: Vec<usize> = (from..to).filter(|&node| !self.again[node]).collect();
        if to == self.graph.nodes.len() {
            // An output may itself derive from the inputs alone.
            pending.extend(self.graph.outputs.iter().filter_map(|output| self.repeated(output)));
        }
        while let Some(node) = pending.pop() {
            if members.insert(node) {
                pending.extend(uses(&self.graph.nodes[node]).filter_map(|name| self.repeated(name)));
            }
        }
    }

    fn repeated(&self, name: &str) -> Option<usize> {
        self.makers.get(name).copied().filter(|&maker| self.again[maker])
    }

    /// Bytes of the distinct large weights of the stages `from..to`, for each `to`.
    fn weight_bytes(&self, from: usize, to: &[usize], external_bytes_min: u64) -> Vec<u64> {
        let (mut members, mut counted, mut names, mut total) =
            (BTreeSet::new(), BTreeSet::new(), BTreeSet::new(), 0_u64);
        let mut reached = from;
        let mut sizes = Vec::with_capacity(to.len());
        for &to in to {
            if to > reached {
                self.extend(&mut members, reached, to);
                reached = to;
            }
            for &node in members.difference(&counted) {
                for name in uses(&self.graph.nodes[node]) {
                    let Some(weight) = self.graph.weights.get(name) else {
                        continue;
                    };
                    if weight.bytes >= external_bytes_min && names.insert(name) {
                        total = total.saturating_add(weight.bytes);
                    }
                }
            }
            counted.clone_from(&members);
            sizes.push(total);
        }
        sizes
    }
}
