//! Gradients of a batch: all activations kept, or those of one layer at a time.

use burn::module::Module;
use burn::tensor::Tensor;

use super::places::Places;
use super::{Batch, Decoder, Gradients};

/// What the backward pass keeps of the forward pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Activations {
    /// Everything: the fastest.
    #[default]
    Keep,
    /// The input of each layer; the rest is computed anew, layer by layer (Chen et al. 2016,
    /// arXiv:1604.06174). Costs a second forward pass and needs the memory of one layer.
    Recompute,
}

/// What makes a training pass differ from an evaluation: dropout of adapters, noise on embeddings.
/// The same seed gives the same numbers, also when a layer is computed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Noise {
    /// Of this pass.
    pub seed: u64,
    /// α of NEFTune (Jain et al. 2023, arXiv:2310.05914): uniform noise on the embeddings of the
    /// size α / √(tokens · width), where tokens are those of a row of the batch, padding included,
    /// as in transformers. It is added to what the first layer sees, also where a model scales its
    /// embeddings; transformers scales the noise of Granite with them.
    pub neftune_alpha: Option<f32>,
}

impl Decoder {
    /// Runs the body of the model on a batch, asks `head` for the gradient of the loss by the hidden
    /// states, and adds the gradients of the trainable parameters to `gradients`.
    ///
    /// `head` gets the hidden states `[batch, time, hidden_size]` without a graph behind them, and
    /// returns their gradient, of the same shape. What the loss has for the output matrix, `head`
    /// adds to the gradients itself; [`Decoder::cross_entropy`] and [`Decoder::logprobs_backward`]
    /// do so.
    ///
    /// The model stands on a device without autodiff, as it does for inference: parameters are
    /// tracked for the time of this call alone, so that an optimizer may change them in place.
    ///
    /// # Panics
    /// When an id of the batch is not below `vocab_size`.
    pub fn backward(
        &self,
        batch: &Batch,
        noise: Option<Noise>,
        activations: Activations,
        gradients: &mut Gradients,
        head: impl FnOnce(Tensor<3>, &mut Gradients) -> Tensor<3>,
    ) {
        match activations {
            Activations::Keep => self.backward_kept(batch, noise, gradients, head),
            Activations::Recompute => self.backward_recomputed(batch, noise, gradients, head),
        }
    }

    fn backward_kept(
        &self,
        batch: &Batch,
        noise: Option<Noise>,
        gradients: &mut Gradients,
        head: impl FnOnce(Tensor<3>, &mut Gradients) -> Tensor<3>,
    ) {
        let tracked = self.clone().train();
        let hidden = tracked.forward_with(batch, noise);
        let by_hidden = head(hidden.clone().inner(), gradients);
        if hidden.is_require_grad() || tracked.parameters().iter().any(|p| p.trainable) {
            let mut found = inject(hidden, by_hidden);
            gradients.collect("", &tracked, &mut found);
        }
    }

    fn backward_recomputed(
        &self,
        batch: &Batch,
        noise: Option<Noise>,
        gradients: &mut Gradients,
        head: impl FnOnce(Tensor<3>, &mut Gradients) -> Tensor<3>,
    ) {
        self.assert_tokens(batch.ids());
        let layout = batch.layout();
        let shape = [batch.batch(), batch.time()];
        let device = self.device();
        let places = |device| Places::new(&self.config, &layout, noise, self.compute, device);
        let (plain, tracked) = (places(&device), places(&device.clone().autodiff()));
        let config = &self.config;

        let mut x = self.embed(batch.ids(), shape, noise);
        let mut inputs = Vec::with_capacity(self.model.layers.len());
        for (index, block) in self.model.layers.iter().enumerate() {
            inputs.push(x.clone());
            x = block.forward(x, config, index, &plain, None, None);
        }
        let by_hidden = head(self.model.norm.forward(x.clone(), config), gradients);

        let trains = |module: &dyn Fn(&str) -> bool| {
            self.parameters().iter().any(|p| p.trainable && module(&p.name))
        };
        // Below the lowest trained layer no gradient is needed.
        let embedding = trains(&|name| name.starts_with("model.embed_tokens."));
        let lowest = (0..inputs.len())
            .find(|index| {
                let prefix = format!("model.layers.{index}.");
                embedding || trains(&|name| name.starts_with(&prefix))
            })
            .unwrap_or(inputs.len());
        let norm = &self.model.norm;
        let mut by_x =
            step(gradients, "model.norm", norm, x, by_hidden, |norm, x| norm.forward(x, config));
        for (index, x) in inputs.into_iter().enumerate().skip(lowest).rev() {
            let block = &self.model.layers[index];
            let prefix = format!("model.layers.{index}");
            by_x = step(gradients, &prefix, block, x, by_x, |block, x| {
                block.forward(x, config, index, &tracked, None, None)
            });
        }
        if embedding {
            let model = self.clone().train();
            let x = model.embed(batch.ids(), shape, noise);
            let mut found = inject(x, by_x);
            let embed_tokens = &model.model.embed_tokens;
            gradients.collect("model.embed_tokens", embed_tokens, &mut found);
        }
    }
}

/// The gradients of everything behind `y`, given the one by `y`.
fn inject(y: Tensor<3>, by_y: Tensor<3>) -> burn::tensor::Gradients {
    (y * Tensor::from_inner(by_y)).sum().backward()
}

/// Computes a module anew and adds the gradients of its parameters; returns the one of its input.
fn step<M: Module>(
    gradients: &mut Gradients,
    prefix: &str,
    module: &M,
    x: Tensor<3>,
    by_y: Tensor<3>,
    forward: impl FnOnce(&M, Tensor<3>) -> Tensor<3>,
) -> Tensor<3> {
    let module = module.clone().train();
    let x = Tensor::from_inner(x).require_grad();
    let y = forward(&module, x.clone());
    let mut found = inject(y, by_y);
    gradients.collect(prefix, &module, &mut found);
    x.grad_remove(&mut found).expect("the input was tracked")
}
