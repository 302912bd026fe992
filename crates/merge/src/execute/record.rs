//! What stands beside the weights of a finished merge: configuration, tokenizer, model card, manifest.

use std::collections::BTreeMap;
use std::path::Path;

use blake3::Hash;

use super::shards::Layout;
use super::{Execution, Report};
use crate::Error;
use crate::checkpoint::INDEX;
use crate::manifest::{
    Contents, FORMAT, InputRecord, Manifest, Options, OutputRecord, Role, TensorRecord, Unused,
};
use crate::plan::{Fate, Input, Origin, Plan};

/// Names that an adapter's stored tensors have in front.
const ADAPTER: &str = "adapter:";

/// The configuration as it was read.
const CONFIG: &str = "mergekit_config.yml";

/// An error for what lies in the folder of an unfinished merge and is none of its files: it would become a part of the
/// merged model. A manifest that was cut off is removed.
pub(super) fn refuse_foreign(plan: &Plan, folder: &Path, layouts: &[Layout]) -> Result<(), Error> {
    let journal = super::journal::NAME;
    let own = [journal, INDEX, CONFIG, crate::card::FILE, crate::manifest::FILE];
    let known = |path: &Path| {
        let name = path.strip_prefix(folder).unwrap_or(path);
        let companion =
            plan.companions().files().keys().any(|file| Path::new(file).starts_with(name));
        let shard = layouts.iter().any(|layout| Path::new(&layout.name) == name);
        companion || shard || own.iter().any(|own| Path::new(own) == name)
    };
    for entry in std::fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = entry.map_err(Error::io(folder))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let cut_off =
            name.starts_with(&format!(".{}.", crate::manifest::FILE)) && name.ends_with(".tmp");
        if cut_off || *name == format!("{journal}.new") {
            std::fs::remove_file(&path).map_err(Error::io(&path))?;
        } else if !known(&path) {
            let reason =
                format!("holds `{name}`, which is no file of this merge; move it elsewhere");
            return Err(Error::checkpoint(folder, reason));
        }
    }
    Ok(())
}

/// Writes everything that is not weights; the manifest last, of what the folder then holds.
pub(super) fn write(
    plan: &Plan,
    folder: &Path,
    out: &Path,
    execution: &Execution,
    report: &Report,
) -> Result<(), Error> {
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        let parent = path.parent().unwrap_or(folder);
        std::fs::create_dir_all(parent).map_err(Error::io(parent))?;
        std::fs::write(&path, bytes).map_err(Error::io(&path))
    };
    for (name, bytes) in plan.companions().files() {
        put(name, bytes)?;
    }
    let yaml = plan.config().to_yaml();
    put(CONFIG, yaml.as_bytes())?;
    let mut manifest = manifest(plan, folder, execution, report)?;
    let name = out.file_name().map_or_else(|| "merged".into(), |name| name.to_string_lossy());
    put(crate::card::FILE, crate::card::card(&name, &manifest, &yaml).as_bytes())?;
    manifest.output.contents.files = files(folder)?;
    manifest.write(folder)
}

fn manifest(
    plan: &Plan,
    folder: &Path,
    execution: &Execution,
    report: &Report,
) -> Result<Manifest, Error> {
    let tensors = plan.outputs().iter().map(|output| {
        let (dtype, shape) = (output.dtype, output.shape.clone());
        (output.name.clone(), TensorRecord { dtype, shape, blake3: report.outputs[&output.name] })
    });
    let contents = Contents::new(BTreeMap::new(), config_hash(folder)?, tensors.collect());
    let from = plan.outputs().iter().map(|output| (output.name.clone(), output.inputs()));
    let inputs = plan
        .inputs()
        .iter()
        .zip(&report.inputs)
        .map(|(input, hashes)| record(plan, input, hashes))
        .collect::<Result<_, _>>()?;
    let copied =
        plan.outputs().iter().filter(|o| matches!(o.origin, Origin::Copy { .. })).count() as u64;
    let unused = plan.coverage().iter().enumerate().flat_map(|(input, coverage)| {
        coverage.tensors.iter().filter_map(move |(tensor, fate)| match fate {
            Fate::Left(reason) => {
                Some(Unused { input, tensor: tensor.clone(), reason: reason.clone() })
            }
            _ => None,
        })
    });
    Ok(Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").into(),
        created: jiff::Timestamp::now().to_string(),
        seed: plan.seed(),
        method: plan.config().merge_method.clone(),
        config: plan.config().to_value(),
        options: Options {
            arithmetic: plan.options().arithmetic.name().into(),
            shard_size: execution.shard_size,
            dtype: plan.config().dtype,
            out_dtype: plan.config().out_dtype,
        },
        inputs,
        output: OutputRecord { contents, from: from.collect() },
        coverage: crate::manifest::Coverage {
            merged: plan.outputs().len() as u64 - copied,
            copied,
            unused: unused.collect(),
        },
    })
}

/// What was read of an input.
fn record(
    plan: &Plan,
    input: &Input,
    hashes: &BTreeMap<String, Hash>,
) -> Result<InputRecord, Error> {
    let mut own = BTreeMap::new();
    let mut adapter = BTreeMap::new();
    for (name, tensor) in input.stored() {
        let record = TensorRecord {
            dtype: tensor.dtype(),
            shape: tensor.shape().to_vec(),
            blake3: hashes[name],
        };
        match name.strip_prefix(ADAPTER) {
            Some(name) => adapter.insert(name.to_owned(), record),
            None => own.insert(name.clone(), record),
        };
    }
    let path = absolute(input.path())?;
    let lora = input.lora.as_deref().map(absolute).transpose()?;
    let adapter = match &lora {
        Some(lora) => Some(Contents::new(files(lora)?, None, adapter)),
        None => None,
    };
    let is_base = plan.config().base_model.as_ref() == Some(&input.reference);
    Ok(InputRecord {
        name: input.name.clone(),
        contents: Contents::new(files(&path)?, config_hash(&path)?, own),
        path,
        lora,
        role: if is_base { Role::Base } else { Role::Input },
        adapter,
    })
}

fn absolute(path: &Path) -> Result<std::path::PathBuf, Error> {
    path.canonicalize().map_err(Error::io(path))
}

/// The files of a checkpoint's folder (or the one file) with their sizes; folders and hidden files aside, and the
/// manifest, which cannot hold itself.
pub(super) fn files(path: &Path) -> Result<BTreeMap<String, u64>, Error> {
    let mut found = BTreeMap::new();
    if path.is_file() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.insert(name, std::fs::metadata(path).map_err(Error::io(path))?.len());
        return Ok(found);
    }
    for entry in std::fs::read_dir(path).map_err(Error::io(path))? {
        let entry = entry.map_err(Error::io(path))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let known = [crate::manifest::FILE, super::journal::NAME].contains(&name.as_str());
        // Through links, as the hub's cache has them.
        let data = std::fs::metadata(entry.path()).map_err(Error::io(entry.path()))?;
        if data.is_file() && !known && !name.starts_with('.') {
            found.insert(name, data.len());
        }
    }
    Ok(found)
}

/// BLAKE3 of `config.json`, where there is one.
pub(super) fn config_hash(folder: &Path) -> Result<Option<Hash>, Error> {
    let path = folder.join("config.json");
    if !path.exists() {
        return Ok(None);
    }
    std::fs::read(&path).map(|bytes| Some(blake3::hash(&bytes))).map_err(Error::io(&path))
}
