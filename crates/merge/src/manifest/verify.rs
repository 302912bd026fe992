//! Whether checkpoints are still what a manifest says, with every difference at once.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::{Contents, InputRecord, Manifest};
use crate::Error;

/// Whose difference it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// Of the merged checkpoint.
    Output,
    /// Of the input with this name.
    Input(String),
}

/// One thing that is not as the manifest says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The bytes of a tensor are others.
    TensorBytes {
        /// Its name.
        tensor: String,
    },
    /// The type or shape of a tensor is another.
    TensorKind {
        /// Its name.
        tensor: String,
        /// What the manifest says, such as `BF16 [2, 3]`.
        recorded: String,
        /// What is there.
        found: String,
    },
    /// A tensor is gone.
    TensorMissing {
        /// Its name.
        tensor: String,
    },
    /// A tensor is there that the manifest does not have.
    TensorExtra {
        /// Its name.
        tensor: String,
    },
    /// A file has another size.
    FileSize {
        /// Its name.
        file: String,
        /// Bytes in the manifest.
        recorded: u64,
        /// Bytes there.
        found: u64,
    },
    /// A file is gone.
    FileMissing {
        /// Its name.
        file: String,
    },
    /// A file is there that the manifest does not have.
    FileExtra {
        /// Its name.
        file: String,
    },
    /// `config.json` is another, or is gone or new.
    Config,
    /// An input is not at its path, nor anywhere that was searched.
    InputGone {
        /// Where it was.
        path: PathBuf,
    },
    /// An input is elsewhere.
    InputMoved {
        /// Where it was.
        from: PathBuf,
        /// Where it is.
        to: PathBuf,
    },
}

/// What a manifest says that is not so; empty when all is as it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    /// Every difference: the output's, then the inputs' in their order.
    pub differences: Vec<(Whose, Difference)>,
    /// How many tensors were compared.
    pub tensors: usize,
}

/// An input as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its folder.
    pub path: PathBuf,
    /// What is in it.
    pub contents: Contents,
}

/// Compares with `manifest` the `output` as it is now, and each input that `input` finds: `None` for one that is
/// gone.
///
/// # Errors
/// Those of `input`.
pub fn verify(
    manifest: &Manifest,
    output: &Contents,
    mut input: impl FnMut(&InputRecord) -> Result<Option<Found>, Error>,
) -> Result<VerifyReport, Error> {
    let mut report = VerifyReport::default();
    report.compare(&Whose::Output, &manifest.output.contents, output);
    for record in &manifest.inputs {
        let whose = Whose::Input(record.name.clone());
        let Some(found) = input(record)? else {
            let gone = Difference::InputGone { path: record.path.clone() };
            report.differences.push((whose, gone));
            continue;
        };
        if found.path != record.path {
            let moved = Difference::InputMoved { from: record.path.clone(), to: found.path };
            report.differences.push((whose.clone(), moved));
        }
        report.compare(&whose, &record.contents, &found.contents);
    }
    Ok(report)
}

impl VerifyReport {
    /// Whether all is as the manifest says.
    pub fn is_ok(&self) -> bool {
        self.differences.is_empty()
    }

    fn compare(&mut self, whose: &Whose, recorded: &Contents, found: &Contents) {
        let mut add = |difference| self.differences.push((whose.clone(), difference));
        for (name, sides) in sides(&recorded.files, &found.files) {
            let file = name.to_owned();
            match sides {
                (Some(&recorded), Some(&found)) if recorded != found => {
                    add(Difference::FileSize { file, recorded, found });
                }
                (Some(_), None) => add(Difference::FileMissing { file }),
                (None, _) => add(Difference::FileExtra { file }),
                (Some(_), Some(_)) => {}
            }
        }
        if recorded.config != found.config {
            add(Difference::Config);
        }
        for (name, sides) in sides(&recorded.tensors, &found.tensors) {
            let tensor = name.to_owned();
            match sides {
                (Some(a), Some(b)) if (a.dtype, &a.shape) != (b.dtype, &b.shape) => {
                    let recorded = format!("{} {:?}", a.dtype, a.shape);
                    let found = format!("{} {:?}", b.dtype, b.shape);
                    add(Difference::TensorKind { tensor, recorded, found });
                }
                (Some(a), Some(b)) if a.blake3 != b.blake3 => {
                    add(Difference::TensorBytes { tensor });
                }
                (Some(_), None) => add(Difference::TensorMissing { tensor }),
                (None, _) => add(Difference::TensorExtra { tensor }),
                (Some(_), Some(_)) => {}
            }
        }
        self.tensors += recorded.tensors.len();
    }
}

type Sides<'a, V> = BTreeMap<&'a str, (Option<&'a V>, Option<&'a V>)>;

/// Both sides of every key, in the order of the keys.
fn sides<'a, V>(a: &'a BTreeMap<String, V>, b: &'a BTreeMap<String, V>) -> Sides<'a, V> {
    let mut sides: Sides<'a, V> = a.iter().map(|(k, v)| (k.as_str(), (Some(v), None))).collect();
    for (key, value) in b {
        sides.entry(key).or_default().1 = Some(value);
    }
    sides
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Output => f.write_str("output"),
            Self::Input(name) => write!(f, "input `{name}`"),
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TensorBytes { tensor } => write!(f, "tensor `{tensor}` has other bytes"),
            Self::TensorKind { tensor, recorded, found } => {
                write!(f, "tensor `{tensor}` is {found}, was {recorded}")
            }
            Self::TensorMissing { tensor } => write!(f, "tensor `{tensor}` is gone"),
            Self::TensorExtra { tensor } => write!(f, "tensor `{tensor}` is new"),
            Self::FileSize { file, recorded, found } => {
                write!(f, "file `{file}` has {found} bytes, had {recorded}")
            }
            Self::FileMissing { file } => write!(f, "file `{file}` is gone"),
            Self::FileExtra { file } => write!(f, "file `{file}` is new"),
            Self::Config => f.write_str("`config.json` is another"),
            Self::InputGone { path } => write!(f, "is no longer at {}", path.display()),
            Self::InputMoved { from, to } => {
                write!(f, "moved from {} to {}", from.display(), to.display())
            }
        }
    }
}

/// One line for each difference, and one with their number.
impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (whose, difference) in &self.differences {
            writeln!(f, "{whose}: {difference}")?;
        }
        write!(f, "{} tensors compared, {} differences", self.tensors, self.differences.len())
    }
}
