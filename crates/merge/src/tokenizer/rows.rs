//! Which row of which model becomes which row of the merged matrices.
//!
//! For output token t and model m, as in mergekit: m's own row where m has t and t is not forced.
//! Otherwise the row of the configuration's source for t; without one, the row of the only model
//! that has t, of the base model where it has t, the mean of the models that have t, or zeros where
//! none has it. Rows that are no token (padding, unused ids) are the mean of the model's new rows.

use std::ops::Range;

use crate::Error;

use super::{MergedTokenizer, TokenSource};

/// "Not in this model."
pub(super) const NONE: u32 = u32::MAX;
/// Marks an index into the fills instead of a row of the model.
const FILL: u32 = 1 << 31;

/// The rows of vocabulary matrices: for each of some models, where each output row comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct RowMaps {
    /// By model: a row of the model, or [`FILL`] with an index into `fills`.
    codes: Vec<Vec<u32>>,
    fills: Vec<Fill>,
    /// What was decided and should be seen, such as tokens without an embedding in any model.
    pub warnings: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Fill {
    Zero,
    MeanOfAll,
    Model { model: usize, row: u32 },
    Mean(Vec<(usize, u32)>),
}

/// Where one row of one model's aligned matrix comes from. Models are positions in the list of
/// inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Row<'a> {
    /// The model's own row.
    Own(u32),
    /// A row of another model, or another row of this one.
    FromModel {
        /// The input.
        model: usize,
        /// Its row.
        row: u32,
    },
    /// The mean of these rows, summed in this order: `(input, row)`.
    Mean(&'a [(usize, u32)]),
    /// Zeros.
    Zero,
    /// The mean of all rows of this model's aligned matrix that are not `MeanOfAll` themselves.
    MeanOfAll,
}

impl RowMaps {
    /// Rows of the merged matrices, padding included.
    pub fn len(&self) -> usize {
        self.codes.first().map_or(0, Vec::len)
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Output row `row` of the model at `position` in the list that the maps were made for.
    pub fn row(&self, position: usize, row: usize) -> Row<'_> {
        self.decode(self.codes[position][row])
    }

    fn decode(&self, code: u32) -> Row<'_> {
        if code & FILL == 0 {
            return Row::Own(code);
        }
        match &self.fills[(code & !FILL) as usize] {
            Fill::Zero => Row::Zero,
            Fill::MeanOfAll => Row::MeanOfAll,
            Fill::Model { model, row } => Row::FromModel { model: *model, row: *row },
            Fill::Mean(rows) => Row::Mean(rows),
        }
    }

    /// The output rows `rows` of one model in order, as runs: `Row::Own(first)` stands for as many
    /// consecutive rows of the model as the range is long, any other row for each of the range.
    pub fn runs(
        &self,
        position: usize,
        rows: Range<usize>,
    ) -> impl Iterator<Item = (Range<usize>, Row<'_>)> {
        let codes = &self.codes[position];
        let mut at = rows.start;
        std::iter::from_fn(move || {
            if at >= rows.end {
                return None;
            }
            let first = codes[at];
            let step = u32::from(first & FILL == 0);
            let like = |(offset, code): (u32, &u32)| *code == first.wrapping_add(offset * step);
            let length = (0..).zip(&codes[at..rows.end]).take_while(|pair| like(*pair)).count();
            let run = at..at + length;
            at = run.end;
            Some((run, self.decode(first)))
        })
    }

    /// Whether the aligned matrix of a model with `rows` rows is its matrix as it is.
    pub fn is_identity(&self, position: usize, rows: usize) -> bool {
        let codes = &self.codes[position];
        codes.len() == rows && (0..).zip(codes).all(|(row, code)| row == *code)
    }
}

impl MergedTokenizer {
    /// The maps for a matrix with inputs from `models` (positions in the list of inputs) and this
    /// base model.
    ///
    /// # Errors
    /// Where the configuration takes a token from a model that is not among `models` or does not
    /// have it.
    pub fn row_maps(&self, models: &[usize], base: Option<usize>) -> Result<RowMaps, Error> {
        let mut fills = vec![Fill::Zero, Fill::MeanOfAll];
        let mut codes = vec![vec![FILL | 1; self.rows]; models.len()];
        let base = base.filter(|base| models.contains(base));
        let mut zeros: Vec<usize> = Vec::new();
        for (row, token) in self.tokens.iter().enumerate() {
            let Some(token) = token else { continue };
            let rule = self.rules.get(&row);
            let force = rule.is_some_and(|rule| rule.force);
            let have = |model: usize| Some(self.own[model][row]).filter(|own| *own != NONE);
            if !force && models.iter().all(|model| have(*model).is_some()) {
                for (codes, model) in codes.iter_mut().zip(models) {
                    codes[row] = self.own[*model][row];
                }
                continue;
            }
            let source = rule.and_then(|rule| rule.source.as_ref());
            let fill = if let Some(source) = source {
                self.explicit(token, row, source, models)?
            } else {
                let having: Vec<(usize, u32)> =
                    models.iter().filter_map(|model| Some((*model, have(*model)?))).collect();
                match (&having[..], base.and_then(|base| Some((base, have(base)?)))) {
                    ([], _) => {
                        zeros.push(row);
                        Fill::Zero
                    }
                    ([(model, row)], _) => Fill::Model { model: *model, row: *row },
                    (_, Some((model, row))) => Fill::Model { model, row },
                    _ => Fill::Mean(having),
                }
            };
            let code = match fill {
                Fill::Zero => FILL,
                fill => {
                    fills.push(fill);
                    FILL | (fills.len() as u32 - 1)
                }
            };
            for (codes, model) in codes.iter_mut().zip(models) {
                codes[row] = have(*model).filter(|_| !force).unwrap_or(code);
            }
        }
        let mut warnings = Vec::new();
        if let Some(token) = zeros.first().and_then(|row| self.token(*row)) {
            warnings.push(format!(
                "{} tokens have no embedding in any input and become zeros, the first is `{token}`",
                zeros.len()
            ));
        }
        Ok(RowMaps { codes, fills, warnings })
    }

    fn explicit(
        &self,
        token: &str,
        row: usize,
        source: &TokenSource,
        models: &[usize],
    ) -> Result<Fill, Error> {
        let key = || format!("tokenizer.tokens.{token}.source");
        let (model, from) = match source {
            TokenSource::Zero => return Ok(Fill::Zero),
            TokenSource::Model(model) => (*model, self.own[*model][row]),
            TokenSource::ModelToken { model, token } => (*model, self.id_in(*model, token, key)?),
        };
        if !models.contains(&model) {
            let inputs: Vec<&str> = models.iter().map(|m| self.names[*m].as_str()).collect();
            let expected = format!("one of the inputs of this matrix: {}", inputs.join(", "));
            return Err(Error::value(key(), &self.names[model], expected));
        }
        if from == NONE {
            return Err(Error::value(key(), &self.names[model], "a model that has the token"));
        }
        Ok(Fill::Model { model, row: from })
    }
}
