//! The files of optimizers and averages.

use std::path::Path;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use safetensors::Dtype;

use super::rule::{Kept, matrix};
use super::tensor_file::{Entry, Reader, write};
use super::{Ema, Optimizer};
use crate::Error;

/// A tensor of an optimizer: of which parameter, and which.
enum Place<'a> {
    /// Steps taken.
    Steps(u64),
    Master(&'a Tensor<2>),
    Kept(&'a Kept),
}

/// Every tensor of an optimizer, in one order for writing and reading.
fn places(optimizer: &Optimizer) -> Vec<(Entry, Place<'_>)> {
    let mut places = Vec::new();
    for (name, slot) in &optimizer.slots {
        let entry =
            |part: &str, dtype, shape: &[usize]| Entry::new(format!("{name}.{part}"), dtype, shape);
        places.push((entry("step", Dtype::I64, &[]), Place::Steps(slot.steps)));
        if let Some(master) = &slot.master {
            let shape = matrix(&slot.shape);
            places.push((entry("master", Dtype::F32, &shape), Place::Master(master)));
        }
        for (part, kept) in slot.rule.parts(&slot.shape).iter().zip(&slot.kept) {
            let dtype = if part.codes { Dtype::U8 } else { Dtype::F32 };
            places.push((entry(part.name, dtype, &part.shape), Place::Kept(kept)));
        }
    }
    places
}

pub(super) fn save_optimizer(optimizer: &Optimizer, path: &Path) -> Result<(), Error> {
    let (entries, places): (Vec<Entry>, Vec<Place<'_>>) = places(optimizer).into_iter().unzip();
    let metadata =
        [("optim", optimizer.optim.name().to_owned()), ("steps", optimizer.steps.to_string())];
    write(path, &metadata, &entries, |i| match places[i] {
        Place::Steps(steps) => steps.to_le_bytes().to_vec(),
        Place::Master(numbers) | Place::Kept(Kept::Numbers(numbers)) => bytes(numbers),
        Place::Kept(Kept::Codes(codes)) => codes.clone().into_data().as_bytes().to_vec(),
    })
}

pub(super) fn load_optimizer(
    optimizer: &mut Optimizer,
    path: &Path,
    device: &Device,
) -> Result<(), Error> {
    let mut file = Reader::open(path)?;
    let (found, expected) = (file.note("optim")?, optimizer.optim.name());
    if found != expected {
        return Err(file.error(format!("was written by {found}, expected {expected}")));
    }
    let steps = file.note("steps")?;
    let steps = steps.parse().map_err(|_| file.error(format!("`steps` is {steps}")))?;
    let expected: Vec<Entry> = places(optimizer).into_iter().map(|(entry, _)| entry).collect();
    file.check(&expected)?;

    optimizer.steps = steps;
    for (name, slot) in &mut optimizer.slots {
        let taken = file.bytes(&format!("{name}.step"))?;
        slot.steps = u64::from_le_bytes(taken.try_into().expect("checked to be one number"));
        if let Some(master) = &mut slot.master {
            *master = numbers(&mut file, &format!("{name}.master"), master.dims(), device)?;
        }
        for (part, kept) in slot.rule.parts(&slot.shape).iter().zip(&mut slot.kept) {
            let name = format!("{name}.{}", part.name);
            *kept = if part.codes {
                let data = TensorData::from_bytes_vec(file.bytes(&name)?, part.shape, DType::U8);
                Kept::Codes(Tensor::<2, Int>::from_data(data, (device, DType::U8)))
            } else {
                Kept::Numbers(numbers(&mut file, &name, part.shape, device)?)
            };
        }
    }
    Ok(())
}

fn averages(ema: &Ema) -> Vec<Entry> {
    let entry = |(name, average): (&String, &Tensor<2>)| {
        Entry::new(name.clone(), Dtype::F32, &average.dims())
    };
    ema.averages.iter().map(entry).collect()
}

pub(super) fn save_ema(ema: &Ema, path: &Path) -> Result<(), Error> {
    let entries = averages(ema);
    write(path, &[], &entries, |i| bytes(&ema.averages[&entries[i].name]))
}

pub(super) fn load_ema(ema: &mut Ema, path: &Path, device: &Device) -> Result<(), Error> {
    let mut file = Reader::open(path)?;
    file.check(&averages(ema))?;
    for (name, average) in &mut ema.averages {
        *average = numbers(&mut file, name, average.dims(), device)?;
    }
    Ok(())
}

fn bytes(numbers: &Tensor<2>) -> Vec<u8> {
    numbers.clone().into_data().as_bytes().to_vec()
}

fn numbers(
    file: &mut Reader,
    name: &str,
    shape: [usize; 2],
    device: &Device,
) -> Result<Tensor<2>, Error> {
    let data = TensorData::from_bytes_vec(file.bytes(name)?, shape, DType::F32);
    Ok(Tensor::from_data(data, (device, DType::F32)))
}
