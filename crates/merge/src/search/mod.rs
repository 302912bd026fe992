//! Which weights? A search over any numbers of a merge configuration, with a score of the caller's.
//!
//! Name the numbers by where they stand, and give their ranges. A [`Search`] merges nothing itself:
//! it hands out configurations, takes scores, and keeps every trial in one SQLite file, with which
//! it goes on after an interruption.
//!
//! ```
//! use posttrain_merge::search::{Confirm, Number, Search, Settings, Space, Strategy};
//! # use serde_json::{Value, json};
//! # type Failure = std::convert::Infallible;
//! # // What a merge and a benchmark would say.
//! # fn solved(config: &Value, item: usize) -> f64 {
//! #     let number = |path: &str| config.pointer(path).and_then(Value::as_f64).unwrap_or(0.0);
//! #     let code = number("/models/0/parameters/weight");
//! #     let maths = number("/models/1/parameters/weight");
//! #     1.0 - (code - 0.8).powi(2) - (maths - 0.3).powi(2) + 0.1 * (item as f64).sin()
//! # }
//! # fn merge_and_solve(config: &Value, _: u64, items: &[String]) -> Result<Vec<f64>, Failure> {
//! #     Ok((0..items.len()).map(|item| solved(config, item)).collect())
//! # }
//! # fn ids(name: &str) -> Vec<String> { (0..40).map(|i| format!("{name}-{i}")).collect() }
//! # let folder = tempfile::tempdir()?;
//! # let file = folder.path().join("search.sqlite");
//! # let (tune, test) = (ids("tune"), ids("test"));
//!
//! let config = json!({
//!     "merge_method": "ties",
//!     "base_model": "base",
//!     "models": [
//!         { "model": "code", "parameters": { "weight": 0.5, "density": 0.5 } },
//!         { "model": "maths", "parameters": { "weight": 0.5, "density": 0.5 } },
//!     ],
//! });
//! let space = Space::new(&config, [
//!     Number::real("models[0].parameters.weight", 0.0..=1.0),
//!     Number::real("models[1].parameters.weight", 0.0..=1.0),
//!     Number::log("models[0].parameters.density", 0.05..=1.0)
//!         .tied_to("models[1].parameters.density")
//!         .named("density"),
//! ])?;
//!
//! let strategy = Strategy::Cma(Settings::default());
//! let mut search = Search::open(&file, space, config, strategy, 42)?;
//! search.run(
//!     |trial| {
//!         let solved = merge_and_solve(&trial.config, trial.seed, &tune)?;
//!         Ok::<_, Failure>(solved.iter().sum::<f64>() / solved.len() as f64)
//!     },
//!     120,
//! )?;
//!
//! let confirm = Confirm { searched: tune, held_out: test.clone(), parents: vec![], candidates: 1 };
//! let seed = search.seed();
//! let confirmed = search.confirm(&confirm, |config| merge_and_solve(config, seed, &test))?;
//! assert!(confirmed.candidates[0].is_confirmed());
//!
//! std::fs::write(folder.path().join("trials.md"), search.to_markdown())?;
//! std::fs::write(folder.path().join("best_so_far.svg"), search.to_svg())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For scores in parallel, [`Search::ask`] several times and [`Search::tell`] each. [`Cma`] and
//! [`Grid`] work without a store as well.

mod bootstrap;
mod cma;
mod confirm;
mod grid;
mod path;
mod plot;
mod report;
mod run;
mod space;
mod store;

pub use self::bootstrap::RESAMPLES;
pub use self::cma::{Cma, Parameters, Settings, Stop, default_lambda};
pub use self::confirm::{Confirm, Confirmation, Gain};
pub use self::grid::{Grid, MAX_POINTS};
pub use self::run::{End, Score, Search, Strategy, Trial};
pub use self::space::{Domain, Number, Point, Space};
pub use self::store::{Record, State};
