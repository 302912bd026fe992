//! From prompts to answers.

mod answer;
mod engine;
mod sampler;
mod stop;
mod text;

use std::path::Path;

use burn::tensor::Device;
use posttrain_chat::ChatTokenizer;
use posttrain_core::{Completion, FinishReason, Generate, Prompt, Request, Sampling};
use tokenizers::Tokenizer;

pub use engine::{Next, TokenCompletion, TokenRequest};

use crate::config::GenerationConfig;
use crate::decoder::{Decoder, LoadOptions};
use crate::error::Error;
use crate::text::Text;
use answer::Answer;
use engine::Event;

/// A model with its tokenizer that answers requests.
///
/// ```no_run
/// use posttrain_core::{Generate, Request};
/// use posttrain_model::{Generator, device};
/// let generator = Generator::load("path/to/checkpoint", &device::open("flex")?)?;
/// let request = Request::new("The capital of France is", generator.sampling().clone());
/// for answer in generator.generate(&[request]) {
///     println!("{}", answer?.text);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Generator {
    model: Decoder,
    text: Text,
    generation: GenerationConfig,
    sampling: Sampling,
    stop_ids: Vec<u32>,
    batch_size: usize,
}

/// A piece of an answer, as soon as it is final.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Number of the request.
    pub request: usize,
    /// The text; empty while a token is only a part of a character, or might belong to a stop
    /// string.
    pub text: &'a str,
}

impl Generator {
    /// Loads the model, the tokenizer, the chat template and the recommended sampling of a folder.
    ///
    /// # Errors
    /// Those of [`Decoder::load`] and [`GenerationConfig::from_model`], [`Error::NoLogits`] for a model
    /// that scores, and [`Error::Chat`] for a missing or broken tokenizer. A missing chat template is an error only when a conversation
    /// is asked for.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self, Error> {
        Self::load_with(folder, device, &LoadOptions::default())
    }

    /// As [`Generator::load`], with the weights in another type.
    ///
    /// # Errors
    /// Those of [`Generator::load`] and [`Decoder::load_with`].
    pub fn load_with(
        folder: impl AsRef<Path>,
        device: &Device,
        options: &LoadOptions,
    ) -> Result<Self, Error> {
        let folder = folder.as_ref();
        let model = Decoder::load_with(folder, device, options)?;
        if !model.config().has_logits() {
            let (path, head) = (folder.to_owned(), model.config().head);
            return Err(Error::NoLogits { path, head });
        }
        let generation = GenerationConfig::from_model(folder, model.config())?;
        let text = Text::from_model(folder)?;
        Ok(Self::from_parts(model, text, generation))
    }

    /// From a model, for instance one that has just been trained, and its tokenizer.
    pub fn new(model: Decoder, chat: ChatTokenizer, generation: GenerationConfig) -> Self {
        Self::from_parts(model, Text::Chat(Box::new(chat)), generation)
    }

    fn from_parts(model: Decoder, text: Text, generation: GenerationConfig) -> Self {
        let mut stop_ids = generation.eos_token_ids.clone();
        if let Text::Chat(chat) = &text {
            stop_ids.extend(chat.stop_token_ids());
        }
        stop_ids.sort_unstable();
        stop_ids.dedup();
        let sampling = generation.sampling();
        Self { model, text, generation, sampling, stop_ids, batch_size: 8 }
    }

    /// How many requests are worked on at a time; 8 by default. On the CPU it changes the speed
    /// and the memory, not the answers; on a GPU the last bits of a logit may depend on it.
    #[must_use]
    pub fn with_batch_size(mut self, batch_size: usize) -> Self {
        self.batch_size = batch_size.max(1);
        self
    }

    /// The model.
    pub fn model(&self) -> &Decoder {
        &self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        self.text.tokenizer()
    }

    /// The tokenizer with its chat template; `None` for a base model without one.
    pub fn chat(&self) -> Option<&ChatTokenizer> {
        self.text.chat().ok()
    }

    /// What `generation_config.json` says, with what it asks for in vain
    /// ([`GenerationConfig::unsupported`]).
    pub fn generation_config(&self) -> &GenerationConfig {
        &self.generation
    }

    /// The sampling that the checkpoint recommends.
    pub fn sampling(&self) -> &Sampling {
        &self.sampling
    }

    /// The ids that end an answer.
    pub fn stop_token_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The ids of a prompt: a text as the tokenizer encodes it (with a BOS where it adds one), a
    /// conversation as the chat template writes it, with a generation prompt.
    ///
    /// # Errors
    /// [`Error::Chat`] when the tokenizer or the template fails, [`Error::NoChatTemplate`] for a
    /// conversation where there is none.
    pub fn encode(&self, prompt: &Prompt) -> Result<Vec<u32>, Error> {
        self.text.encode_prompt(prompt)
    }

    /// Answers every request, and hands over each piece of text as soon as it is final. The
    /// observer is called for every token, and can cancel one request or all. Text that was held
    /// back until a request ended comes with one more call, whose answer does not matter.
    ///
    /// ```no_run
    /// use posttrain_core::Request;
    /// use posttrain_model::{Generator, Next, device};
    /// let generator = Generator::load("path/to/checkpoint", &device::open("flex")?)?;
    /// let request = Request::new("Once upon a time", generator.sampling().clone());
    /// generator.stream(&[request], &mut |piece| {
    ///     print!("{}", piece.text);
    ///     Next::Continue
    /// });
    /// # Ok::<(), posttrain_model::Error>(())
    /// ```
    pub fn stream(
        &self,
        requests: &[Request],
        observer: &mut dyn FnMut(Piece<'_>) -> Next,
    ) -> Vec<Result<Completion, posttrain_core::Error>> {
        // What cannot be encoded is answered at once; the others keep their numbers.
        let mut results: Vec<Option<Result<Completion, posttrain_core::Error>>> = Vec::new();
        let (mut tokens, mut numbers, mut answers) = (Vec::new(), Vec::new(), Vec::new());
        for (number, request) in requests.iter().enumerate() {
            match self.encode(&request.prompt) {
                Ok(ids) => {
                    tokens.push(TokenRequest { ids, sampling: request.sampling.clone() });
                    numbers.push(number);
                    let stop = request.sampling.stop.iter();
                    answers.push(Answer::new(self.tokenizer(), stop));
                    results.push(None);
                }
                Err(error) => results.push(Some(Err(error.into()))),
            }
        }
        let mut failed: Vec<Option<Error>> = answers.iter().map(|_| None).collect();
        let stop_ids = &self.stop_ids;
        let completions =
            engine::run(&self.model, &tokens, stop_ids, self.batch_size, &mut |index, event| {
                let sampling = &tokens[index].sampling;
                let text = match event {
                    // The end token is no text, whether the tokenizer calls it special or not.
                    Event::Token(id)
                        if stop_ids.contains(&id) || sampling.stop_token_ids.contains(&id) =>
                    {
                        Ok(String::new())
                    }
                    Event::Token(id) => answers[index].push(id),
                    Event::End => answers[index].finish(),
                };
                let text = match text {
                    Ok(text) => text,
                    Err(error) => {
                        failed[index] = Some(error);
                        return Next::Cancel;
                    }
                };
                if event == Event::End && text.is_empty() {
                    return Next::Continue;
                }
                let next = observer(Piece { request: numbers[index], text: &text });
                let stopped = answers[index].stopped() && next == Next::Continue;
                if stopped { Next::Stop } else { next }
            });
        let ended = completions.into_iter().zip(answers).zip(failed).enumerate();
        for (index, ((completion, answer), failed)) in ended {
            let completion = completion.and_then(|answered| failed.map_or(Ok(answered), Err));
            let completion = completion.map(|answered| {
                // A stop string may become visible only with the last held-back text.
                let late = answer.stopped() && answered.finish_reason == FinishReason::Length;
                let finish_reason = if late { FinishReason::Stop } else { answered.finish_reason };
                Completion {
                    text: answer.into_text(),
                    completion_tokens: answered.ids.len(),
                    token_ids: answered.ids,
                    logprobs: answered.logprobs,
                    finish_reason,
                    prompt_tokens: tokens[index].ids.len(),
                }
            });
            results[numbers[index]] = Some(completion.map_err(Into::into));
        }
        results.into_iter().map(|result| result.expect("every request has ended")).collect()
    }
}

impl Generate for Generator {
    fn generate(&self, requests: &[Request]) -> Vec<Result<Completion, posttrain_core::Error>> {
        self.stream(requests, &mut |_| Next::Continue)
    }
}
