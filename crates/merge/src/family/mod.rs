//! The family tree of merges of merges, gathered from manifests and cards.
//!
//! [`gather`] reads folders into a [`Tree`]; [`Tree::shares`] says how much of each model comes from each of its
//! ancestors (the rules are those of [`share`]); [`text`], [`svg`] and [`mermaid`] draw it.

mod describe;
mod front_matter;
mod gather;
mod layout;
mod link;
mod mermaid;
mod recipe;
pub mod share;
mod style;
mod svg;
mod text;

use std::fmt;
use std::path::PathBuf;

use blake3::Hash;

pub use gather::gather;
pub use mermaid::mermaid;
pub use svg::svg;
pub use text::text;

use crate::Error;

/// Models and how they came from each other. Edges go from parents to children, and there is no cycle.
#[derive(Debug, Default)]
pub struct Tree {
    /// The models.
    pub nodes: Vec<Node>,
    /// Who came from whom, in the order of each child's configuration.
    pub edges: Vec<Edge>,
    /// What could not be read or decided.
    pub notes: Vec<Note>,
    /// The nodes, parents before children.
    order: Vec<usize>,
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// What it is called, short.
    pub name: String,
    /// The folders in which it was found.
    pub paths: Vec<PathBuf>,
    /// The content hash of its tensors, where a manifest tells it.
    pub content: Option<Hash>,
    /// What it is.
    pub kind: Kind,
    /// Where its parents' shares come from.
    pub basis: Basis,
}

/// What a model is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A checkpoint that says of no other that it came from it.
    Base,
    /// Trained further from its parent, or its parent with an adapter.
    Finetune,
    /// Merged from its parents.
    Merge,
    /// An adapter for its parent.
    Adapter,
    /// Its parent with fewer bits.
    Quantized,
    /// Only mentioned, or its card is unreadable.
    Unknown,
}

/// Where the shares of a model's parents come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The weights of the configuration, or there is one parent.
    Weights,
    /// As `Weights`, for each tensor of the manifest and by the tensors' sizes.
    Tensors,
    /// Nothing tells them, or they depend on the numbers in the tensors: equal, in whole or in part.
    Equal,
}

/// A child came from a parent.
#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    /// The place of the parent in [`Tree::nodes`].
    pub parent: usize,
    /// The place of the child in [`Tree::nodes`].
    pub child: usize,
    /// The merge method, or `finetune`, `adapter`, `quantized`, `lora`, `base`.
    pub method: String,
    /// The weight in the configuration, its mean where it differs by layer or tensor.
    pub weight: Option<f64>,
    /// The part of the child that is the parent's, 0 to 1; `None` where another edge counts it, as for an
    /// adapter, which is counted with the model that it changes.
    pub share: Option<f64>,
    /// How the parent was recognised.
    pub link: Link,
}

/// How the model that a child names as its parent was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// By the content hash of its tensors.
    Content,
    /// By its folder.
    Path,
    /// By its name alone.
    Name,
    /// Not: nothing is known of it but the child's word.
    Mention,
}

/// Something that the reader of the tree should know.
#[derive(Debug)]
pub enum Note {
    /// A file or folder could not be read; the tree is without what it says.
    Unreadable(Error),
    /// More than one model goes by the name that a child gives its parent; a model of its own stands for it.
    Ambiguous {
        /// The name.
        name: String,
        /// The child.
        child: String,
        /// Which models it could be.
        candidates: Vec<String>,
    },
    /// A folder held other tensors when it was merged than now; a model of its own stands for what it held.
    Changed {
        /// The folder.
        path: PathBuf,
        /// The child that was made of it.
        child: String,
    },
    /// A merged folder holds the same tensors as another model; its own recipe is not drawn.
    Copy {
        /// The folder.
        path: PathBuf,
        /// The other model.
        of: String,
    },
}

impl Tree {
    /// A tree of these nodes and edges.
    ///
    /// # Errors
    /// For a cycle, by its names.
    ///
    /// # Panics
    /// For an edge to a node that is not there.
    pub fn new(nodes: Vec<Node>, edges: Vec<Edge>, notes: Vec<Note>) -> Result<Self, Error> {
        let mut tree = Self { nodes, edges, notes, order: Vec::new() };
        let mut left: Vec<usize> = vec![0; tree.nodes.len()];
        let mut children = vec![Vec::new(); tree.nodes.len()];
        for edge in &tree.edges {
            left[edge.child] += 1;
            children[edge.parent].push(edge.child);
        }
        tree.order = (0..left.len()).filter(|node| left[*node] == 0).collect();
        let mut next = 0;
        while let Some(&node) = tree.order.get(next) {
            next += 1;
            for &child in &children[node] {
                left[child] -= 1;
                if left[child] == 0 {
                    tree.order.push(child);
                }
            }
        }
        match (0..left.len()).find(|node| left[*node] > 0) {
            None => Ok(tree),
            Some(node) => Err(tree.cycle(node, &left)),
        }
    }

    /// Every node in `left` has a parent in it: going up from one arrives in a cycle.
    fn cycle(&self, mut node: usize, left: &[usize]) -> Error {
        let mut path = Vec::new();
        loop {
            if let Some(start) = path.iter().position(|seen| *seen == node) {
                path.push(node);
                let models = path[start..].iter().rev().map(|n| self.nodes[*n].name.clone());
                return Error::Cycle { models: models.collect() };
            }
            path.push(node);
            let parent = self.parents(node).find(|edge| left[edge.parent] > 0);
            node = parent.expect("a node is left because one of its parents is").parent;
        }
    }

    /// The edges to a node's parents.
    pub fn parents(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.child == node)
    }

    /// The edges to a node's children.
    pub fn children(&self, node: usize) -> impl Iterator<Item = &Edge> {
        self.edges.iter().filter(move |edge| edge.parent == node)
    }

    /// The nodes, parents before children.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// For each node the shares of its ancestors, largest first, 0 to 1.
    ///
    /// The share of an ancestor is the sum over all ways up to it of the product of the shares on the way. The
    /// shares of the roots, which have no parents, add up to 1; so a fine-tuned model's base counts in full beside the
    /// fine-tuned model itself.
    pub fn shares(&self) -> Vec<Vec<(usize, f64)>> {
        let mut all: Vec<Vec<(usize, f64)>> = vec![Vec::new(); self.nodes.len()];
        for &node in &self.order {
            let mut sums = std::collections::BTreeMap::new();
            for (edge, share) in self.parents(node).filter_map(|e| Some((e, e.share?))) {
                *sums.entry(edge.parent).or_insert(0.0) += share;
                for (ancestor, further) in &all[edge.parent] {
                    *sums.entry(*ancestor).or_insert(0.0) += share * further;
                }
            }
            all[node] = sums.into_iter().collect();
            all[node].sort_by(|a, b| b.1.total_cmp(&a.1));
        }
        all
    }

    /// Of a node's `shares`, those of roots.
    pub fn roots<'a>(
        &'a self,
        shares: &'a [(usize, f64)],
    ) -> impl Iterator<Item = (usize, f64)> + 'a {
        shares.iter().copied().filter(|(node, _)| self.is_root(*node))
    }

    /// Whether nothing counted is above the node.
    pub fn is_root(&self, node: usize) -> bool {
        self.parents(node).all(|edge| edge.share.is_none())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Finetune => "finetune",
            Self::Merge => "merge",
            Self::Adapter => "adapter",
            Self::Quantized => "quantized",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Content => "by content hash",
            Self::Path => "by path",
            Self::Name => "by name",
            Self::Mention => "only mentioned",
        })
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(error) => write!(f, "unreadable: {error}"),
            Self::Ambiguous { name, child, candidates } => write!(
                f,
                "ambiguous: `{name}`, a parent of `{child}`, could be any of {}",
                candidates.join(", ")
            ),
            Self::Changed { path, child } => {
                write!(
                    f,
                    "changed: {} held other tensors when `{child}` was made of it",
                    path.display()
                )
            }
            Self::Copy { path, of } => {
                write!(f, "copy: {} holds the same tensors as `{of}`", path.display())
            }
        }
    }
}
