//! What the numbers suggest. Rules of thumb, each with its threshold and where it comes from: none of them
//! replaces an evaluation of the merged model.

use serde::Serialize;

use super::measures::{Measures, OfModel, OfPair};
use super::number::{cosine, count, percent, several, short};
use super::{Part, Sensitivity};

/// From this cosine on task vectors are nearly one direction. A rule of thumb.
const COLLINEAR: f64 = 0.9;
/// Up to this cosine they are nearly orthogonal, as those of different tasks typically are (Ilharco et al. 2022). The
/// number is a rule of thumb.
const ORTHOGONAL: f64 = 0.2;
/// How many standard deviations from 0 a module's cosine is no accident of few elements. A rule of thumb.
const DEVIATIONS: f64 = 4.0;
/// From this part of chance on signs are as good as tossed. A rule of thumb.
const TOSSED: f64 = 0.8;
/// The share that TIES keeps in its paper (Yadav et al. 2023) ..
const TIES_DENSITY: f64 = 0.2;
/// .. which does little harm if it holds so much of the changes; 0.44 is what a normal distribution has. A rule of thumb.
const CONCENTRATED: f64 = 0.6;
/// The density where it holds less: that of mergekit's examples.
const DENSE: f64 = 0.5;
/// Deltas of fine-tuned models are mostly within this size, and nine of ten can be dropped (Yu et al. 2023).
const SMALL: f64 = 0.002;
/// From this share of unchanged elements on an update is sparse: reinforcement learning changes 5 to 30 % (Mukherjee et
/// al. 2025).
const SPARSE: f64 = 0.6;
/// Task vectors that are so many times longer than the others' drown them. A rule of thumb.
const LONGER: f64 = 3.0;
/// A distance of a whole model from its base that fine-tuning does not reach. A rule of thumb.
const FAR: f64 = 0.5;
/// A module stands out with a distance of this, or so many times that of its model. Rules of thumb.
const FAR_MODULE: f64 = 0.5;
const TIMES_FARTHER: f64 = 5.0;
/// A norm that grew or shrank by this factor. A rule of thumb.
const RESCALED: f64 = 1.25;
/// A stable rank below this part of what a matrix could have is low. A rule of thumb.
const LOW_RANK: f64 = 0.05;
/// How many places a suggestion names.
const NAMED: usize = 5;

const ILHARCO: &str = "Ilharco et al. 2022, arXiv 2212.04089; the lambda is what Yadav et al. 2023, arXiv 2306.01708, take \
     without data to choose it by";
const TIES: &str = "Yadav et al. 2023, arXiv 2306.01708; Yu et al. 2023, arXiv 2311.03099. On language models Hitit et al. 2025, \
     arXiv 2511.21437, saw only task arithmetic gain reliably: compare with it";

/// A suggestion with the numbers that led to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// What to do.
    pub advice: String,
    /// The numbers, and the threshold of the rule.
    pub because: String,
    /// Where the threshold comes from; `None` for a rule of thumb.
    pub source: Option<String>,
    /// Whether something should be looked at before anything is merged.
    pub check: bool,
}

impl Suggestion {
    fn new(advice: impl Into<String>, because: impl Into<String>) -> Self {
        Self { advice: advice.into(), because: because.into(), source: None, check: false }
    }

    fn from(mut self, source: &str) -> Self {
        self.source = Some(source.to_owned());
        self
    }

    fn check(mut self) -> Self {
        self.check = true;
        self
    }
}

/// All suggestions, what to check first in front.
pub(super) fn suggestions(of: &Sensitivity) -> Vec<Suggestion> {
    let mut found = Vec::new();
    found.extend(left_out(of));
    found.extend(not_related(of));
    found.extend(lengths(of));
    found.extend(far_modules(of));
    found.extend(rescaled(of));
    found.extend(opposed_modules(of));
    found.extend(directions(of));
    found.extend(conflict(of));
    found.extend(stock(of));
    found.extend(sparse(of));
    found.extend(low_rank(of));
    found.extend(identical(of));
    found.extend(without_base(of));
    found.sort_by_key(|suggestion| !suggestion.check);
    found
}

/// Some of the texts, and how many there are more.
fn some(texts: impl IntoIterator<Item = String>) -> String {
    let texts: Vec<String> = texts.into_iter().collect();
    let named = texts[..texts.len().min(NAMED)].join(", ");
    match texts.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

impl Sensitivity {
    fn name(&self, model: usize) -> &str {
        &self.models[model].name
    }

    /// `a and b`.
    pub(super) fn pair_name(&self, pair: &OfPair) -> String {
        format!("{} and {}", self.name(pair.first), self.name(pair.second))
    }

    fn overall_models(&self) -> impl Iterator<Item = (&str, &OfModel)> {
        self.models.iter().map(|model| model.name.as_str()).zip(&self.overall.models)
    }
}

impl Part {
    /// `layer 3 mlp.down_proj`, with the stack.
    pub(super) fn label(&self) -> String {
        let stack = self.stack.as_ref().filter(|_| self.layer.is_some());
        let layer = self.layer.map(|layer| layer.to_string());
        let place = stack.zip(layer).map(|(stack, layer)| format!("{stack}.{layer}"));
        [place, self.kind.clone()].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

fn left_out(of: &Sensitivity) -> Option<Suggestion> {
    let unusual: Vec<_> = of.left_out.iter().filter(|left| !left.harmless).collect();
    let first = unusual.first()?;
    let advice = format!("Look at {} that could not be compared", several(unusual.len(), "tensor"));
    let because =
        format!("such as {}: {}. A merge needs a decision for each.", first.name, first.reason);
    Some(Suggestion::new(advice, because).check())
}

/// Models that are the base, or that cannot come from it.
fn not_related(of: &Sensitivity) -> Vec<Suggestion> {
    let mut found = Vec::new();
    for (name, model) in of.overall_models() {
        let Some(distance) = model.distance else { continue };
        if model.delta == Some(0.0) {
            let because = "all compared tensors are equal, and it adds nothing to a merge";
            found.push(Suggestion::new(format!("{name} is the base"), because).check());
        } else if distance >= FAR {
            let advice = format!("Make sure that {name} was trained from this base");
            let because = format!(
                "its distance from the base is {} of the base's norm (fine-tuning stays far below {FAR}; unrelated models \
                 of one norm have 1.41) and its cosine with the base {}",
                short(distance),
                model.cosine_to_base.map_or("unknown".into(), cosine)
            );
            found.push(Suggestion::new(advice, because).check());
        }
    }
    found
}

/// A model whose task vector is far longer than the others'.
fn lengths(of: &Sensitivity) -> Vec<Suggestion> {
    let models: Vec<(&str, f64)> = of
        .overall_models()
        .filter_map(|(name, model)| Some((name, model.delta.filter(|delta| *delta > 0.0)?)))
        .collect();
    let mut found = Vec::new();
    for (index, (name, delta)) in models.iter().enumerate() {
        let mut others: Vec<f64> =
            models.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, m)| m.1).collect();
        others.sort_by(f64::total_cmp);
        let Some(median) = others.get(others.len() / 2) else { continue };
        let times = delta / median;
        if times >= LONGER {
            let advice =
                format!("Give {name} a smaller weight, about {:.2} of the others'", 1.0 / times);
            let because = format!(
                "its task vector is {} times as long as the others' ({} against {}, the median): with equal weights it \
                 decides alone (rule: from {LONGER} times on)",
                short(times),
                short(*delta),
                short(*median)
            );
            found.push(Suggestion::new(advice, because));
        }
    }
    found
}

fn far_modules(of: &Sensitivity) -> Option<Suggestion> {
    let far = |part: &&Part| {
        part.measures.models.iter().zip(&of.overall.models).any(|(here, overall)| {
            let Some((here, overall)) = here.distance.zip(overall.distance) else { return false };
            here >= FAR_MODULE || here >= TIMES_FARTHER * overall
        })
    };
    let mut parts: Vec<&Part> = of.cells.iter().filter(far).collect();
    let distance = |part: &Part| part.measures.largest_distance().unwrap_or(0.0);
    parts.sort_by(|a, b| distance(b).total_cmp(&distance(a)));
    if parts.is_empty() {
        return None;
    }
    let advice = format!("Check {} that went far from the base", several(parts.len(), "module"));
    let names = parts.iter().map(|part| format!("{} ({})", part.label(), short(distance(part))));
    let because = format!(
        "{}: at least {FAR_MODULE} of the base's norm, or {TIMES_FARTHER} times the distance of the whole model. They may \
         want a weight of their own (a `filter`), or the tensors of one model.",
        some(names)
    );
    Some(Suggestion::new(advice, because).check())
}

fn rescaled(of: &Sensitivity) -> Option<Suggestion> {
    let changed = |ratio: &f64| *ratio >= RESCALED || *ratio <= 1.0 / RESCALED;
    let most = |part: &Part| {
        let ratios = part.measures.models.iter().filter_map(|model| model.norm_ratio);
        ratios.filter(changed).max_by(|a, b| a.ln().abs().total_cmp(&b.ln().abs()))
    };
    let mut parts: Vec<(&Part, f64)> =
        of.cells.iter().filter_map(|part| Some((part, most(part)?))).collect();
    parts.sort_by(|a, b| b.1.ln().abs().total_cmp(&a.1.ln().abs()));
    if parts.is_empty() {
        return None;
    }
    let advice = format!("Check {} whose norm changed", several(parts.len(), "module"));
    let names = parts.iter().map(|(part, ratio)| format!("{} ({})", part.label(), short(*ratio)));
    let because = format!(
        "{}: norm of a model over that of the base (rule: beyond {RESCALED} or {:.1}). Averages of differently scaled \
         tensors have neither's scale.",
        some(names),
        1.0 / RESCALED
    );
    Some(Suggestion::new(advice, because).check())
}

fn opposed_modules(of: &Sensitivity) -> Option<Suggestion> {
    of.base.as_ref()?;
    let least = |measures: &Measures| {
        let cosines = measures.pairs.iter().filter_map(|pair| pair.cosine);
        // Cosines of unrelated vectors vary by 1 / sqrt(n).
        let limit = ORTHOGONAL.max(DEVIATIONS / (measures.elements as f64).sqrt());
        cosines.reduce(f64::min).filter(|cosine| *cosine <= -limit)
    };
    let mut parts: Vec<(&Part, f64)> =
        of.cells.iter().filter_map(|part| Some((part, least(&part.measures)?))).collect();
    parts.sort_by(|a, b| a.1.total_cmp(&b.1));
    if parts.is_empty() {
        return None;
    }
    let advice =
        format!("Look at {} pulled in opposite directions", several(parts.len(), "module"));
    let names = parts.iter().map(|(part, least)| format!("{} ({})", part.label(), cosine(*least)));
    let because = format!(
        "{}: least cosine of two task vectors (rule: up to -{ORTHOGONAL}, and {DEVIATIONS} standard deviations below that \
         of unrelated ones). A sum undoes what both learned there: take \
         one model's, by a weight with a `filter`.",
        some(names)
    );
    Some(Suggestion::new(advice, because))
}

/// Same direction, none in common, or opposite ones.
fn directions(of: &Sensitivity) -> Vec<Suggestion> {
    if of.base.is_none() {
        return Vec::new();
    }
    let pairs = |fits: &dyn Fn(f64) -> bool| -> Option<String> {
        let pairs = of.overall.pairs.iter().filter_map(|pair| Some((pair, pair.cosine?)));
        let fitting: Vec<String> = pairs
            .filter(|(_, cosine)| fits(*cosine))
            .map(|(pair, value)| format!("{} {}", of.pair_name(pair), cosine(value)))
            .collect();
        (!fitting.is_empty()).then(|| some(fitting))
    };
    let mut found = Vec::new();
    if let Some(pairs) = pairs(&|cosine| cosine >= COLLINEAR) {
        let because = format!(
            "cosine of the task vectors: {pairs} (rule: from {COLLINEAR} on). They are nearly one direction: signs agree, \
             election and trimming have nothing to resolve; without normalising, a sum goes twice as far."
        );
        let advice = "Use linear, or task_arithmetic with weights that sum to about 1";
        found.push(Suggestion::new(advice, because));
    }
    if let Some(pairs) = pairs(&|cosine| cosine.abs() < ORTHOGONAL) {
        let because = format!(
            "cosine of the task vectors: {pairs} (rule: within {ORTHOGONAL} of 0). Nearly orthogonal task vectors, as those of \
             different tasks typically are, add up with little interference; begin with a lambda of about 0.4."
        );
        found.push(Suggestion::new("Try task_arithmetic first", because).from(ILHARCO));
    }
    if let Some(pairs) = pairs(&|cosine| cosine <= -ORTHOGONAL) {
        let because = format!(
            "cosine of the task vectors: {pairs} (rule: up to -{ORTHOGONAL}). What one learned the other takes back."
        );
        let advice = "Ask whether these models should be merged at all";
        found.push(Suggestion::new(advice, because).check());
    }
    found
}

fn conflict(of: &Sensitivity) -> Option<Suggestion> {
    of.base.as_ref()?;
    let signs = of.overall.together.as_ref()?;
    let (by_size, chance) = (signs.conflict_by_size?, signs.chance?);
    if by_size < TOSSED * chance {
        return None;
    }
    let held: Vec<f64> = of.overall.models.iter().filter_map(|model| model.top_fifth).collect();
    let least = held.iter().copied().reduce(f64::min)?;
    let density = if least >= CONCENTRATED { TIES_DENSITY } else { DENSE };
    let small = of.overall.models.iter().all(|m| m.mean_change.is_some_and(|mean| mean <= SMALL));
    let mean = of.overall.models.iter().filter_map(|m| m.mean_change).reduce(f64::max)?;
    let dare = if small {
        format!(
            "The mean change is at most {}, so small (up to {SMALL}) that dare_ties may drop more still, down to a density of 0.1.",
            short(mean)
        )
    } else {
        format!(
            "The mean change is up to {}: more than the {SMALL} up to which DARE drops most of them without harm.",
            short(mean)
        )
    };
    let because = format!(
        "signs meet in {} of the elements that two models changed, {} by size, where tossed signs would in {} (rule: from \
         {TOSSED} of that on); a sum of the deltas loses {} of them. The largest fifth of the deltas holds at least {} of \
         their sum (a normal distribution: 44 %; rule: density {TIES_DENSITY} from {} on, otherwise {DENSE}). {dare}",
        percent(signs.conflict.unwrap_or(0.0)),
        percent(by_size),
        percent(chance),
        percent(signs.cancelled.unwrap_or(0.0)),
        percent(least),
        percent(CONCENTRATED),
    );
    let advice = format!("Try ties or dare_ties with a density of about {density}");
    Some(Suggestion::new(advice, because).from(TIES))
}

fn stock(of: &Sensitivity) -> Option<Suggestion> {
    of.base.as_ref()?;
    let cosines: Vec<f64> = of.overall.pairs.iter().filter_map(|pair| pair.cosine).collect();
    let lengths: Vec<f64> = of.overall.models.iter().filter_map(|model| model.delta).collect();
    let least = cosines.iter().copied().reduce(f64::min)?;
    let most = cosines.iter().copied().reduce(f64::max)?;
    let ratio =
        lengths.iter().copied().reduce(f64::max)? / lengths.iter().copied().reduce(f64::min)?;
    if least < ORTHOGONAL || most >= COLLINEAR || ratio > RESCALED {
        return None;
    }
    let because = format!(
        "task vectors of nearly one length (within a factor of {}, rule: {RESCALED}) at cosines from {} to {} look like \
         models of one task on a shell around their centre, which is what model_stock estimates",
        short(ratio),
        cosine(least),
        cosine(most)
    );
    let source = "Jang, Yun, Han 2024, arXiv 2403.19522";
    Some(Suggestion::new("Try model_stock", because).from(source))
}

fn sparse(of: &Sensitivity) -> Option<Suggestion> {
    let together = of.overall.together.as_ref()?;
    let models: Vec<(&str, f64)> = of
        .overall_models()
        .filter_map(|(name, model)| Some((name, model.unchanged?)))
        .filter(|(_, share)| *share >= SPARSE && *share < 1.0)
        .collect();
    if models.is_empty() {
        return None;
    }
    let because = format!(
        "unchanged elements: {} (rule: from {} on), and only {} of all were changed by two models. An average shrinks what \
         one model alone changed; ram keeps it.",
        some(models.iter().map(|(name, share)| format!("{name} {}", percent(*share)))),
        percent(SPARSE),
        percent(together.shared)
    );
    let source = "Mukherjee et al. 2025, arXiv 2505.11711; RAM, arXiv 2601.13572";
    Some(Suggestion::new("Try ram or ramplus_tl", because).from(source))
}

fn low_rank(of: &Sensitivity) -> Option<Suggestion> {
    let sides: Vec<f64> = of
        .tensors
        .iter()
        .filter(|tensor| tensor.shape.len() == 2)
        .map(|tensor| tensor.shape[0].min(tensor.shape[1]) as f64)
        .collect();
    let side = sides.iter().sum::<f64>() / sides.len().max(1) as f64;
    let low: Vec<String> = of
        .overall_models()
        .filter_map(|(name, model)| Some((name, model.stable_rank?)))
        .filter(|(_, rank)| *rank <= LOW_RANK * side)
        .map(|(name, rank)| format!("{name} {}", short(rank)))
        .collect();
    if low.is_empty() {
        return None;
    }
    let because = format!(
        "mean stable rank of the deltas: {}, of at most {} on average (rule: up to {} of it). They may be a merged LoRA.",
        some(low),
        short(side),
        percent(LOW_RANK)
    );
    Some(Suggestion::new("Adapters may do: extract them and merge those", because))
}

fn identical(of: &Sensitivity) -> Option<Suggestion> {
    let same: Vec<_> = of.tensors.iter().filter(|tensor| tensor.measures.is_identical()).collect();
    if same.is_empty() || same.len() == of.tensors.len() && of.base.is_some() {
        return None;
    }
    let elements: u64 = same.iter().map(|tensor| tensor.measures.elements).sum();
    let advice =
        format!("Nothing to merge in {} of {}", same.len(), several(of.tensors.len(), "tensor"));
    let because = format!(
        "they are the same in all models ({} of {} parameters): {}",
        count(elements),
        count(of.overall.elements),
        some(same.iter().map(|tensor| tensor.name.clone()))
    );
    Some(Suggestion::new(advice, because))
}

fn without_base(of: &Sensitivity) -> Vec<Suggestion> {
    if of.base.is_some() {
        return Vec::new();
    }
    let far: Vec<String> = of
        .overall
        .pairs
        .iter()
        .filter_map(|pair| Some((pair, pair.distance.filter(|distance| *distance >= FAR)?)))
        .map(|(pair, distance)| format!("{} {}", of.pair_name(pair), short(distance)))
        .collect();
    let mut found = Vec::new();
    if !far.is_empty() {
        let advice = "Make sure that these models were trained from one base";
        let because = format!(
            "distance between them: {} of their norm (fine-tuned models of one base stay far below {FAR}; unrelated ones have \
             1.41)",
            some(far)
        );
        found.push(Suggestion::new(advice, because).check());
    }
    let advice = "Name the base model, if there is one";
    let because = "without it there are no task vectors: their cosines, lengths and conflicts say most about a merge. \
                   Methods that need no base: linear, slerp, nuslerp, multislerp, karcher";
    found.push(Suggestion::new(advice, because));
    found
}
