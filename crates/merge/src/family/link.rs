//! Which of the models that folders and configurations speak of are the same.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

use blake3::Hash;

use super::describe::{Described, Parent, Reference};
use super::{Basis, Edge, Kind, Link, Node, Note, Tree};
use crate::Error;

/// What was linked so far.
#[derive(Default)]
struct Links {
    nodes: Vec<Node>,
    by_content: HashMap<Hash, usize>,
    by_path: HashMap<PathBuf, usize>,
    /// Models that are only mentioned, by their exact names.
    mentioned: HashMap<String, usize>,
    /// How many nodes have a folder that was gathered; those of mentions come after.
    gathered: usize,
    notes: Vec<Note>,
}

/// The tree of what the folders say.
pub(super) fn link(described: Vec<Described>, notes: Vec<Note>) -> Result<Tree, Error> {
    let mut links = Links { notes, ..Links::default() };
    let mut own = vec![None; described.len()];
    for (model, own) in described.iter().zip(&mut own) {
        if returned_input(model).is_none() {
            *own = links.folder(model);
        }
    }
    for model in &described {
        if let Some(input) = returned_input(model) {
            links.returned(model, input);
        }
    }
    links.gathered = links.nodes.len();

    // Surest first, so that a name finds what a hash or a path has told.
    let mut references: Vec<(usize, &Reference)> = Vec::new();
    for (model, child) in described.iter().zip(&own) {
        for parent in model.parents.iter().filter(|_| child.is_some()) {
            references.extend(child.map(|child| (child, &parent.model)));
            references.extend(child.zip(parent.lora.as_ref()));
        }
    }
    let sureness = |reference: &Reference| match reference {
        Reference { content: Some(_), .. } => 0,
        Reference { path: Some(_), .. } => 1,
        _ => 2,
    };
    let mut order: Vec<usize> = (0..references.len()).collect();
    order.sort_by_key(|place| sureness(references[*place].1));
    let mut resolved = vec![(0, Link::Mention); references.len()];
    for place in order {
        let (child, reference) = references[place];
        resolved[place] = links.resolve(child, reference);
    }

    let mut resolved = resolved.into_iter();
    let mut edges: Vec<Edge> = Vec::new();
    let mut with_lora: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for (model, child) in described.iter().zip(&own) {
        let Some(child) = *child else { continue };
        for parent in &model.parents {
            let (mut node, link) = resolved.next().expect("one for each reference");
            if parent.lora.is_some() {
                let lora = resolved.next().expect("one for each reference");
                let known = with_lora.entry((node, lora.0));
                node = *known.or_insert_with(|| links.adapted((node, link), lora, &mut edges));
            }
            add(&mut edges, parent, node, child, link);
        }
    }
    let Links { mut nodes, notes, .. } = links;
    tell_apart(&mut nodes);
    Tree::new(nodes, edges, notes)
}

/// The input whose tensors are those of the model, unchanged.
fn returned_input(model: &Described) -> Option<&Reference> {
    let inputs = model.parents.iter().filter(|parent| parent.lora.is_none());
    let mut inputs = inputs.map(|parent| &parent.model);
    inputs.find(|input| input.content.is_some() && input.content == model.content)
}

/// An edge, or more of one: a configuration may have a model more than once.
fn add(edges: &mut Vec<Edge>, parent: &Parent, node: usize, child: usize, link: Link) {
    let Parent { method, weight, share, .. } = parent;
    if let Some(edge) = edges.iter_mut().find(|e| (e.parent, e.child) == (node, child)) {
        edge.share = edge.share.zip(*share).map(|(a, b)| a + b);
        edge.weight = edge.weight.filter(|own| Some(*own) == *weight);
        return;
    }
    let method = method.clone();
    edges.push(Edge { parent: node, child, method, weight: *weight, share: *share, link });
}

impl Links {
    /// The node of a folder; `None` if its tensors are those of another model, whose recipe counts.
    fn folder(&mut self, model: &Described) -> Option<usize> {
        let same = model.content.and_then(|content| self.by_content.get(&content).copied());
        if let Some(node) = same {
            self.copy(model, node);
            return None;
        }
        Some(self.add_folder(model, folder_name(&model.folder), model.kind))
    }

    /// A merge that gave back one of its inputs is that input.
    fn returned(&mut self, model: &Described, input: &Reference) {
        let at_path = input.path.as_ref().and_then(|path| self.by_path.get(path));
        let by_content = input.content.and_then(|content| self.by_content.get(&content));
        let same = |node: &&usize| {
            let known = self.nodes[**node].content;
            known.is_none() || known == input.content
        };
        if let Some(&node) = by_content.or(at_path.filter(same)) {
            self.learn(node, input.content);
            self.copy(model, node);
        } else {
            let node = self.add_folder(model, short_name(&input.name), Kind::Unknown);
            let of = self.nodes[node].name.clone();
            self.notes.push(Note::Copy { path: model.folder.clone(), of });
        }
    }

    fn add_folder(&mut self, model: &Described, name: String, kind: Kind) -> usize {
        let node = self.nodes.len();
        self.nodes.push(Node {
            name,
            paths: vec![model.folder.clone()],
            content: None,
            kind,
            basis: model.basis,
        });
        self.by_path.insert(model.folder.clone(), node);
        self.learn(node, model.content);
        node
    }

    fn copy(&mut self, model: &Described, node: usize) {
        let of = self.nodes[node].name.clone();
        self.notes.push(Note::Copy { path: model.folder.clone(), of });
        self.nodes[node].paths.push(model.folder.clone());
        self.by_path.insert(model.folder.clone(), node);
    }

    /// The node that is meant by `child`'s reference, a new one if none is.
    fn resolve(&mut self, child: usize, reference: &Reference) -> (usize, Link) {
        let content = reference.content;
        if let Some(node) = content.and_then(|content| self.by_content.get(&content)) {
            return (*node, Link::Content);
        }
        let at_path = reference.path.as_ref().and_then(|path| self.by_path.get(path)).copied();
        if let (Some(node), Some(path)) = (at_path, &reference.path) {
            if content.is_none() || self.nodes[node].content.is_none() {
                self.learn(node, content);
                return (node, Link::Path);
            }
            let child = self.nodes[child].name.clone();
            self.notes.push(Note::Changed { path: path.clone(), child });
            return (self.mention(reference, true), Link::Mention);
        }
        let candidates: Vec<usize> = self
            .named(&reference.name)
            .into_iter()
            .filter(|node| {
                *node != child && (content.is_none() || self.nodes[*node].content.is_none())
            })
            .collect();
        match candidates[..] {
            [node] => {
                self.learn(node, content);
                let link = if node < self.gathered { Link::Name } else { Link::Mention };
                (node, link)
            }
            [] => (self.mention(reference, false), Link::Mention),
            _ => {
                let place = |node: &usize| match self.nodes[*node].paths.first() {
                    Some(path) => path.display().to_string(),
                    None => self.nodes[*node].name.clone(),
                };
                let candidates = candidates.iter().map(place).collect();
                let child = self.nodes[child].name.clone();
                let name = reference.name.clone();
                self.notes.push(Note::Ambiguous { name, child, candidates });
                (self.mention(reference, false), Link::Mention)
            }
        }
    }

    fn learn(&mut self, node: usize, content: Option<Hash>) {
        if let Some(content) = content {
            self.nodes[node].content = Some(content);
            self.by_content.insert(content, node);
        }
    }

    /// A node for a model of which nothing is known but what a child says.
    fn mention(&mut self, reference: &Reference, earlier: bool) -> usize {
        let node = self.nodes.len();
        let name = short_name(&reference.name);
        self.nodes.push(Node {
            name: if earlier { format!("{name} (earlier)") } else { name },
            paths: Vec::new(),
            content: reference.content,
            kind: Kind::Unknown,
            basis: Basis::Weights,
        });
        if let Some(content) = reference.content {
            self.by_content.insert(content, node);
        }
        if !earlier {
            self.mentioned.insert(reference.name.clone(), node);
            if let Some(path) = &reference.path {
                self.by_path.insert(path.clone(), node);
            }
        }
        node
    }

    /// The nodes that a name can mean: one mentioned by it, else folders whose paths end with it, else folders
    /// whose last part is its last part.
    fn named(&self, name: &str) -> Vec<usize> {
        if let Some(node) = self.mentioned.get(name) {
            return vec![*node];
        }
        let path = name.split_once('@').map_or(name, |(path, _)| path).trim_end_matches('/');
        if path.is_empty() {
            return Vec::new();
        }
        let folders = |fits: &dyn Fn(&Path) -> bool| -> Vec<usize> {
            let nodes = self.nodes[..self.gathered].iter().enumerate();
            nodes.filter(|(_, node)| node.paths.iter().any(|p| fits(p))).map(|(i, _)| i).collect()
        };
        let on_hub = folders(&|folder| hub_name(folder).as_deref() == Some(path));
        if !on_hub.is_empty() {
            return on_hub;
        }
        let whole = folders(&|folder| hub_name(folder).is_none() && folder.ends_with(path));
        if !whole.is_empty() {
            return whole;
        }
        let last = Path::new(path).file_name();
        // A folder of the hub's cache has its whole name, which is another.
        folders(&|folder| {
            last.is_some() && hub_name(folder).is_none() && folder.file_name() == last
        })
    }

    /// A model with an adapter: a model of its own.
    fn adapted(
        &mut self,
        (model, model_link): (usize, Link),
        (lora, lora_link): (usize, Link),
        edges: &mut Vec<Edge>,
    ) -> usize {
        let child = self.nodes.len();
        if self.nodes[lora].kind == Kind::Unknown {
            self.nodes[lora].kind = Kind::Adapter;
        }
        self.nodes.push(Node {
            name: format!("{} + {}", self.nodes[model].name, self.nodes[lora].name),
            paths: Vec::new(),
            content: None,
            kind: Kind::Finetune,
            basis: Basis::Weights,
        });
        let edge = |parent, method: &str, share, link| Edge {
            parent,
            child,
            method: method.to_owned(),
            weight: None,
            share,
            link,
        };
        edges.push(edge(model, "base", Some(1.0), model_link));
        edges.push(edge(lora, "lora", None, lora_link));
        child
    }
}

/// `org/name` for a folder of the hub's cache: `models--org--name/snapshots/revision`.
fn hub_name(folder: &Path) -> Option<String> {
    let snapshots = folder.parent()?;
    let repository = snapshots.parent()?.file_name()?.to_str()?;
    let name = repository.strip_prefix("models--")?.replace("--", "/");
    (snapshots.file_name()? == "snapshots").then_some(name)
}

fn folder_name(folder: &Path) -> String {
    let last = || folder.file_name().map(|name| name.to_string_lossy().into_owned());
    hub_name(folder).or_else(last).unwrap_or_else(|| folder.display().to_string())
}

/// A name as it is, of a long path the last part.
fn short_name(name: &str) -> String {
    let parts: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
    match parts[..] {
        [.., last] if name.starts_with(['/', '.', '~']) || parts.len() > 2 => last.to_owned(),
        _ => name.to_owned(),
    }
}

/// Adds the parts of paths above to equal names until they differ or there are none left, and then numbers.
fn tell_apart(nodes: &mut [Node]) {
    for depth in 2..=4 {
        for group in same_names(nodes) {
            for node in group {
                let node = &mut nodes[node];
                if let Some(path) = node.paths.first().filter(|path| hub_name(path).is_none()) {
                    let parts: Vec<_> = path.iter().map(|part| part.to_string_lossy()).collect();
                    node.name = parts[parts.len().saturating_sub(depth)..].join("/");
                }
            }
        }
    }
    for group in same_names(nodes) {
        for (number, node) in group.into_iter().enumerate().skip(1) {
            nodes[node].name = format!("{} ({})", nodes[node].name, number + 1);
        }
    }
}

fn same_names(nodes: &[Node]) -> Vec<Vec<usize>> {
    let mut groups: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (place, node) in nodes.iter().enumerate() {
        groups.entry(&node.name).or_default().push(place);
    }
    groups.into_values().filter(|group| group.len() > 1).collect()
}
