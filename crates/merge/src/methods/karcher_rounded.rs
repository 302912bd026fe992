//! The Karcher mean with every intermediate result rounded, as torch computes it in the type of the inputs.
//!
//! The steps are kept as numbers, and each pass over the tensors makes the mean of a block anew from the
//! first step on: no more memory than otherwise, and time that grows with the square of the steps.

use super::Apply;
use crate::group::{Block, Group};
use crate::{Error, ops};

/// What is known of a tensor so far.
pub(super) struct Rounded<'a> {
    group: &'a Group<'a>,
    /// `|x_i|`, not rounded.
    norms: Vec<f32>,
    /// The inputs with a direction.
    directed: Vec<usize>,
    /// `|sum_i alpha u_i|`; `None` where it vanishes and `m` begins at the first.
    length: Option<f32>,
    steps: Vec<Step>,
}

struct Step {
    /// Inputs, `cos theta_i`, and the factors of what is orthogonal to `m`.
    pulls: Vec<(usize, f32, f32)>,
    /// `|T|`.
    tangent: f32,
    /// The norm of `m` after the step.
    norm: f32,
}

impl<'a> Rounded<'a> {
    pub(super) fn prepare(
        group: &'a Group<'a>,
        max_iter: u32,
        tol: f32,
    ) -> Result<Apply<'a>, Error> {
        let n = group.inputs.len();
        let squares =
            group.sums(n, |block| block.inputs.iter().map(|x| ops::dot_f64(x, x)).collect());
        let norms: Vec<f32> = squares.into_iter().map(|square| square.sqrt() as f32).collect();
        if norms.iter().any(|norm| !norm.is_finite()) {
            return Err(Error::tensor(
                group.name,
                "some values are NaN or infinite, expected finite ones",
            ));
        }
        let directed: Vec<usize> = (0..n).filter(|i| norms[*i] > tol).collect();
        if directed.is_empty() {
            return Ok(Box::new(|_, y| y.fill(0.0)));
        }
        let mut rounded = Self { group, norms, directed, length: Some(1.0), steps: Vec::new() };
        let length = rounded.norm(Self::mean);
        rounded.length = (length >= tol && length > 0.0).then_some(length);
        for _ in 0..max_iter {
            let pulls = rounded.pulls(tol);
            rounded.steps.push(Step { pulls, tangent: 1.0, norm: 1.0 });
            let tangent = rounded.norm(|rounded, block| {
                let (step, done) = rounded.steps.split_last().expect("pushed");
                let m = rounded.mean_after(block, done);
                rounded.tangent(block, &m, step)
            });
            if tangent < tol || tangent == 0.0 {
                rounded.steps.pop();
                break;
            }
            let last = rounded.steps.len() - 1;
            rounded.steps[last].tangent = tangent;
            let norm = rounded.norm(Self::mean);
            rounded.steps[last].norm = if norm > tol { norm } else { 1.0 };
        }
        let alpha = 1.0 / n as f32;
        let scale = group.rounded(rounded.norms.iter().map(|norm| alpha * norm).sum());
        Ok(Box::new(move |block, y| {
            y.copy_from_slice(&rounded.mean(block));
            ops::scale(y, scale);
            group.round(y);
        }))
    }

    fn alpha(&self) -> f32 {
        (1.0 / self.directed.len() as f64) as f32
    }

    /// The norm of what `of` makes of the blocks.
    fn norm(&self, of: impl Fn(&Self, &mut Block) -> Vec<f32> + Sync) -> f32 {
        let [square] = self.group.sum(|block| {
            let v = of(self, block);
            [ops::dot_f64(&v, &v)]
        });
        square.sqrt() as f32
    }

    /// `cos theta_i` and `alpha theta_i / sin theta_i` of the inputs that pull.
    fn pulls(&self, tol: f32) -> Vec<(usize, f32, f32)> {
        let round = |value: f32| self.group.rounded(value);
        let dots = self.group.sums(self.directed.len(), |block| {
            let m = self.mean(block);
            // torch.dot does not round the products.
            self.directed.iter().map(|i| ops::dot_f64(&block.inputs[*i], &m)).collect()
        });
        let pull = |(i, cos): (&usize, f64)| {
            let cos = round(cos as f32).clamp(-1.0, 1.0);
            let theta = round(cos.acos());
            let pull = round(self.alpha() * round(theta / round(theta.sin())));
            (theta >= tol && theta > 0.0).then_some((*i, cos, pull))
        };
        self.directed.iter().zip(dots).filter_map(pull).collect()
    }

    /// `m`, and the `u_i` in place of the inputs.
    fn mean(&self, block: &mut Block) -> Vec<f32> {
        self.mean_after(block, &self.steps)
    }

    fn mean_after(&self, block: &mut Block, steps: &[Step]) -> Vec<f32> {
        for i in &self.directed {
            let u = &mut block.inputs[*i];
            ops::divide(u, self.norms[*i]);
            self.group.round(u);
        }
        let mut m = match self.length {
            None => block.inputs[self.directed[0]].clone(),
            Some(length) => {
                let mut m = vec![0.0; block.inputs[0].len()];
                for i in &self.directed {
                    self.add(&mut m, block.inputs[*i].clone(), self.alpha());
                }
                ops::divide(&mut m, length);
                self.group.round(&mut m);
                m
            }
        };
        for step in steps {
            let mut t = self.tangent(block, &m, step);
            ops::divide(&mut t, step.tangent);
            self.group.round(&mut t);
            ops::scale(&mut m, self.group.rounded(step.tangent.cos()));
            self.group.round(&mut m);
            self.add(&mut m, t, self.group.rounded(step.tangent.sin()));
            ops::divide(&mut m, step.norm);
            self.group.round(&mut m);
        }
        m
    }

    /// `T` at `m`, from the `u_i`.
    fn tangent(&self, block: &Block, m: &[f32], step: &Step) -> Vec<f32> {
        let mut t = vec![0.0; m.len()];
        for (i, cos, pull) in &step.pulls {
            let mut off = m.to_vec();
            ops::scale(&mut off, -cos);
            self.group.round(&mut off);
            ops::add_to(&mut off, &block.inputs[*i]);
            self.group.round(&mut off);
            self.add(&mut t, off, *pull);
        }
        t
    }

    /// `sum += c x`, the product and the sum rounded.
    fn add(&self, sum: &mut [f32], mut x: Vec<f32>, c: f32) {
        ops::scale(&mut x, c);
        self.group.round(&mut x);
        ops::add_to(sum, &x);
        self.group.round(sum);
    }
}
