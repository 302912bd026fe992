//! The losses by their names in a configuration, over answers as they stand in a batch.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};

use super::{
    Answer, AnswerGradient, Bco, Cpo, Dpo, Group, Kto, Loss, Metrics, Orpo, OwnLoss, Pair,
    PairGradient, Rrhf, Shift, Slic, Tpo,
};
use crate::Error;
use crate::data::RowKind;

/// A loss with its settings. In a file `type` says which; the name alone takes the defaults.
///
/// ```
/// use posttrain_train::preference::{Answer, Loss, OwnLoss, PairGradient, PreferenceLoss};
/// let loss: PreferenceLoss = serde_json::from_str(r#"{"type": "dpo", "loss_type": "ipo"}"#)?;
/// assert!(loss.has_reference());
/// // A loss of your own: the mean of −log π of the chosen answers.
/// let own = PreferenceLoss::Own(OwnLoss::without_reference(|pairs| {
///     let share = 1.0 / pairs.len() as f64;
///     let mut loss = Loss { gradient: vec![PairGradient::default(); pairs.len()], ..Loss::default() };
///     for (pair, by) in pairs.iter().zip(&mut loss.gradient) {
///         loss.loss -= share * pair.chosen.sum;
///         by.chosen.sum = -share;
///     }
///     loss
/// }));
/// assert!(!own.has_reference());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum PreferenceLoss {
    /// DPO and its family: pairs against a reference.
    Dpo(Dpo),
    /// KTO: labelled answers against a reference.
    Kto(Kto),
    /// BCO: labelled answers against a reference and a running mean.
    Bco(Bco),
    /// ORPO: pairs.
    Orpo(Orpo),
    /// CPO with `SimPO` and `AlphaPO`: pairs.
    Cpo(Cpo),
    /// TPO: pairs and a gold answer.
    Tpo(Tpo),
    /// RRHF: pairs or rankings.
    Rrhf(Rrhf),
    /// `SLiC`: pairs or rankings.
    Slic(Slic),
    /// A closure; no file can say it.
    Own(OwnLoss),
}

impl<'de> Deserialize<'de> for PreferenceLoss {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(tag = "type", rename_all = "snake_case")]
        enum Full {
            Dpo(Dpo),
            Kto(Kto),
            Bco(Bco),
            Orpo(Orpo),
            Cpo(Cpo),
            Tpo(Tpo),
            Rrhf(Rrhf),
            Slic(Slic),
        }
        let value = match Value::deserialize(deserializer)? {
            Value::String(name) => json!({ "type": name }),
            Value::Object(settings) if !settings.contains_key("type") => {
                return Err(D::Error::custom(
                    "missing field `type`, expected one of `dpo`, `kto`, `bco`, `orpo`, `cpo`, \
                     `tpo`, `rrhf`, `slic`, as in `{type: dpo, beta: 0.1}`",
                ));
            }
            other => other,
        };
        Ok(match Full::deserialize(value).map_err(D::Error::custom)? {
            Full::Dpo(loss) => Self::Dpo(loss),
            Full::Kto(loss) => Self::Kto(loss),
            Full::Bco(loss) => Self::Bco(loss),
            Full::Orpo(loss) => Self::Orpo(loss),
            Full::Cpo(loss) => Self::Cpo(loss),
            Full::Tpo(loss) => Self::Tpo(loss),
            Full::Rrhf(loss) => Self::Rrhf(loss),
            Full::Slic(loss) => Self::Slic(loss),
        })
    }
}

impl Default for PreferenceLoss {
    fn default() -> Self {
        Self::Dpo(Dpo::default())
    }
}

/// The answers of a batch.
#[derive(Clone, Debug, Default)]
pub(super) struct Scores {
    /// Of each text.
    pub(super) policy: Vec<Answer>,
    /// The same; empty where the loss has no reference.
    pub(super) reference: Vec<Answer>,
    /// Of each text how many of its tokens had the highest probability.
    pub(super) top1: Vec<usize>,
    /// Prompt and answer of the first text of each row; empty but for ORPO.
    pub(super) whole: Vec<Answer>,
    /// What the data says of each text.
    pub(super) values: Vec<Vec<f64>>,
    /// Texts of each row.
    pub(super) rows: Vec<usize>,
    /// KTO's reference point.
    pub(super) z: f64,
    /// BCO's running mean.
    pub(super) shift: Shift,
}

impl Scores {
    /// Takes the answers of another batch in; z becomes the mean over rows.
    pub(super) fn extend(&mut self, other: Self) {
        let (n, m) = (self.rows.len() as f64, other.rows.len() as f64);
        self.z = (n * self.z + m * other.z) / (n + m).max(1.0);
        self.shift = other.shift;
        self.policy.extend(other.policy);
        self.reference.extend(other.reference);
        self.top1.extend(other.top1);
        self.whole.extend(other.whole);
        self.values.extend(other.values);
        self.rows.extend(other.rows);
    }

    fn pairs(&self, of: &[Answer]) -> Vec<Pair> {
        let mut start = 0;
        let pair = |&texts: &usize| {
            let pair = of.get(start..start + 2).map(|p| Pair { chosen: p[0], rejected: p[1] });
            start += texts;
            pair
        };
        self.rows.iter().filter_map(pair).collect()
    }

    fn labels(&self) -> Vec<bool> {
        self.values.iter().map(|values| values.first().is_some_and(|&label| label > 0.5)).collect()
    }

    /// Whether each text is better than others: the first of a pair, the best of a ranking, a good one.
    pub(super) fn better(&self, kind: RowKind) -> Vec<bool> {
        match kind {
            RowKind::Labelled => self.labels(),
            RowKind::Pairs | RowKind::Triples => {
                self.rows.iter().flat_map(|&texts| (0..texts).map(|index| index == 0)).collect()
            }
            RowKind::Ranked => {
                let groups = self.groups();
                let best = groups.iter().map(|group| (group.answers.len(), group.best()));
                best.flat_map(|(texts, best)| (0..texts).map(move |index| index == best)).collect()
            }
        }
    }

    /// A pair without scores is in its order.
    fn groups(&self) -> Vec<Group> {
        let mut start = 0;
        let group = |&texts: &usize| {
            let range = start..start + texts;
            start += texts;
            let scored = self.values[range.clone()].iter().all(|values| !values.is_empty());
            let rewards = range
                .clone()
                .map(|text| if scored { self.values[text][0] } else { (range.end - text) as f64 });
            Group { answers: self.policy[range.clone()].to_vec(), rewards: rewards.collect() }
        };
        self.rows.iter().map(group).collect()
    }
}

impl PreferenceLoss {
    /// Whether it compares with a reference.
    pub fn has_reference(&self) -> bool {
        match self {
            Self::Dpo(_) | Self::Kto(_) | Self::Bco(_) => true,
            Self::Orpo(_) | Self::Cpo(_) | Self::Tpo(_) | Self::Rrhf(_) | Self::Slic(_) => false,
            Self::Own(own) => own.reads_reference,
        }
    }

    /// The rows that it is for.
    pub fn rows(&self) -> RowKind {
        match self {
            Self::Dpo(_) | Self::Orpo(_) | Self::Cpo(_) | Self::Own(_) => RowKind::Pairs,
            Self::Tpo(tpo) if tpo.tpo_alpha == 0.0 => RowKind::Pairs,
            Self::Tpo(_) => RowKind::Triples,
            Self::Rrhf(_) | Self::Slic(_) => RowKind::Ranked,
            Self::Kto(_) | Self::Bco(_) => RowKind::Labelled,
        }
    }

    /// What evaluations measure, without `eval_`. An own loss may have any metrics, so that nothing of it
    /// is known before the first.
    pub(crate) fn measured(&self) -> Option<Vec<&'static str>> {
        const ALWAYS: [&str; 5] =
            ["loss", "entropy", "mean_token_accuracy", "length/chosen", "length/rejected"];
        const ANSWERS: [&str; 5] = [
            "rewards/chosen",
            "rewards/rejected",
            "rewards/margins",
            "logps/chosen",
            "logps/rejected",
        ];
        let own: &[&str] = match self {
            Self::Kto(_) => &["kl"],
            Self::Bco(_) => &["delta"],
            Self::Orpo(_) => {
                &["rewards/accuracies", "nll_loss", "log_odds_ratio", "log_odds_chosen"]
            }
            Self::Cpo(cpo) if cpo.nll_weight() != 0.0 => &["rewards/accuracies", "nll_loss"],
            Self::Tpo(tpo) if tpo.tpo_alpha != 0.0 => &["rewards/accuracies", "nll_loss"],
            Self::Slic(slic) if slic.lambda != 0.0 => &["rewards/accuracies", "nll_loss"],
            Self::Dpo(_) | Self::Rrhf(_) | Self::Cpo(_) | Self::Tpo(_) | Self::Slic(_) => {
                &["rewards/accuracies"]
            }
            Self::Own(_) => return None,
        };
        let reference: &[&str] = if self.has_reference() { &["reference_kl"] } else { &[] };
        Some([&ALWAYS[..], &ANSWERS, own, reference].concat())
    }

    /// That all settings are in range.
    ///
    /// # Errors
    /// [`Error::Config`] with the key of the first that is not.
    pub fn validate(&self) -> Result<(), Error> {
        match self {
            Self::Dpo(dpo) => dpo.validate(),
            Self::Kto(kto) => kto.validate(),
            Self::Bco(bco) => bco.validate(),
            Self::Orpo(orpo) => orpo.validate(),
            Self::Cpo(cpo) => cpo.validate(),
            Self::Tpo(tpo) => tpo.validate(),
            Self::Rrhf(rrhf) => rrhf.validate(),
            Self::Slic(slic) => slic.validate(),
            Self::Own(_) => Ok(()),
        }
    }

    /// The loss of a batch; its gradient is by each text.
    pub(super) fn loss(&self, scores: &Scores) -> Loss<AnswerGradient> {
        let pairs = || scores.pairs(&scores.policy);
        let reference = || scores.pairs(&scores.reference);
        match self {
            Self::Dpo(dpo) => of_pairs(scores, dpo.loss(&pairs(), &reference())),
            Self::Own(own) => of_pairs(scores, own.loss(&pairs(), &reference())),
            Self::Orpo(orpo) => {
                let mut loss = orpo.loss(&pairs(), &scores.whole);
                let by = loss.by_nll_token;
                loss.gradient.iter_mut().for_each(|pair| pair.chosen.sum += by);
                of_pairs(scores, loss)
            }
            Self::Cpo(cpo) => of_pairs(scores, cpo.loss(&pairs())),
            Self::Tpo(tpo) => {
                let starts = scores.rows.iter().scan(0, |end, texts| {
                    *end += texts;
                    Some(*end)
                });
                let third = tpo.tpo_alpha != 0.0;
                let gold: Vec<usize> = starts.map(|end| end - 1).filter(|_| third).collect();
                let answers: Vec<Answer> = gold.iter().map(|&text| scores.policy[text]).collect();
                let loss = tpo.loss(&pairs(), &answers);
                let by = loss.by_nll_token;
                let mut loss = of_pairs(scores, loss);
                for text in gold {
                    loss.gradient[text].sum += by;
                }
                loss
            }
            Self::Kto(kto) => {
                kto.loss(&scores.policy, &scores.reference, &scores.labels(), scores.z)
            }
            Self::Bco(bco) => {
                bco.loss(&scores.policy, &scores.reference, &scores.labels(), scores.shift)
            }
            Self::Rrhf(rrhf) => of_groups(rrhf.loss(&scores.groups()), &[]),
            Self::Slic(slic) => {
                let groups = scores.groups();
                let best: Vec<usize> = groups.iter().map(Group::best).collect();
                let targets = groups.iter().zip(&best).map(|(group, &best)| group.answers[best]);
                of_groups(slic.loss(&groups, &targets.collect::<Vec<_>>()), &best)
            }
        }
    }
}

/// The gradient of pairs by the texts of the rows.
fn of_pairs(scores: &Scores, loss: Loss<PairGradient>) -> Loss<AnswerGradient> {
    let Loss { loss, gradient, by_nll_token, metrics } = loss;
    let none = AnswerGradient::default();
    let by_text = gradient.into_iter().zip(&scores.rows).flat_map(|(pair, &texts)| {
        let pair = [pair.chosen, pair.rejected];
        pair.into_iter().chain(std::iter::repeat_n(none, texts - 2))
    });
    Loss { loss, gradient: by_text.collect(), by_nll_token, metrics }
}

/// The gradient of groups by their texts; the one by the tokens of the NLL goes to those of the best.
fn of_groups(loss: Loss<Vec<f64>>, best: &[usize]) -> Loss<AnswerGradient> {
    let Loss { loss, mut gradient, by_nll_token, metrics } = loss;
    for (by, &best) in gradient.iter_mut().zip(best) {
        by[best] += by_nll_token;
    }
    let by_text = gradient.into_iter().flatten().map(|sum| AnswerGradient { sum, tail: 0.0 });
    Loss { loss, gradient: by_text.collect(), by_nll_token: 0.0, metrics }
}

/// Metrics under names of their own.
pub(super) fn named(metrics: Metrics) -> impl Iterator<Item = (String, f64)> {
    metrics.into_iter().map(|(name, value)| (name.to_owned(), value))
}
