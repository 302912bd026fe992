//! The header of a safetensors file: what is wrong with it, tensor by tensor.
//!
//! `{"NAME": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ..}`, where the offsets of all tensors
//! cover the data behind the header without holes and without overlaps.

use std::collections::HashSet;
use std::fmt;

use safetensors::Dtype;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::Value;

/// Tensors whose problems are told one by one.
const TOLD: usize = 12;

/// Several problems as one text: what they are problems of, and the first of them.
pub(super) fn listed(what: &str, problems: &[String]) -> String {
    match problems {
        [one] => format!("{what}: {one}"),
        several => {
            let more = several.len().saturating_sub(TOLD);
            let rest = if more > 0 { format!("\n    and {more} more") } else { String::new() };
            let told = several[..several.len() - more].join("\n    ");
            format!("{what}, {} problems:\n    {told}{rest}", several.len())
        }
    }
}

/// Everything that is wrong with a header before `data` bytes of tensors.
pub(super) fn problems(header: &[u8], data: u64) -> Vec<String> {
    let entries = match entries(header) {
        Ok(entries) => entries,
        Err(error) => return vec![format!("{error}, expected a JSON object of tensors")],
    };
    let mut problems = Vec::new();
    let mut names = HashSet::new();
    let mut places = Vec::new();
    for (name, value) in &entries {
        if !names.insert(name) {
            problems.push(format!("`{name}` is there twice"));
        } else if name != "__metadata__" {
            match place(value) {
                Ok([from, to]) => places.push((from, to, name)),
                Err(reason) => problems.push(format!("tensor `{name}`: {reason}")),
            }
        }
    }
    let whole = problems.is_empty();
    places.sort_unstable();
    let mut end = 0;
    let mut before = None;
    for (from, to, name) in places {
        if from < end {
            let before = before.map_or("", |name: &String| name.as_str());
            problems.push(format!(
                "tensor `{name}` begins at {from}, `{before}` ends at {end}: they overlap"
            ));
        } else if from > end && whole {
            let place = before.map_or("the header".to_owned(), |before| format!("`{before}`"));
            problems.push(format!(
                "{} bytes between {place} and tensor `{name}` are no tensor's",
                from - end
            ));
        }
        if to > data {
            problems.push(format!(
                "tensor `{name}` ends at {to}, the file has {data} bytes of data: it is cut off"
            ));
        }
        if to >= end {
            (end, before) = (to, Some(name));
        }
    }
    if whole && end < data {
        problems.push(format!("the tensors have {end} bytes, the file has {data} bytes of data"));
    }
    problems
}

/// Where a tensor lies, if it has a type and as many bytes as its shape asks for.
fn place(value: &Value) -> Result<[u64; 2], String> {
    let key = |key: &str| value.get(key).ok_or_else(|| format!("it has no `{key}`"));
    let numbers = |key: &str, value: &Value| -> Result<Vec<u64>, String> {
        let numbers = value.as_array().and_then(|all| all.iter().map(Value::as_u64).collect());
        numbers.ok_or_else(|| {
            format!("`{key}` is {value}, expected a list of whole numbers from 0 on")
        })
    };
    let dtype = key("dtype")?;
    let Ok(dtype) = serde_json::from_value::<Dtype>(dtype.clone()) else {
        return Err(format!("`dtype` is {dtype}, expected one such as \"BF16\""));
    };
    let shape = numbers("shape", key("shape")?)?;
    let offsets = numbers("data_offsets", key("data_offsets")?)?;
    let &[from, to] = &offsets[..] else {
        return Err(format!("`data_offsets` has {} numbers, expected 2", offsets.len()));
    };
    if to < from {
        return Err(format!("it ends at {to}, before it begins at {from}"));
    }
    let bits = shape
        .iter()
        .try_fold(1u64, |count, length| count.checked_mul(*length))
        .and_then(|count| count.checked_mul(dtype.bitsize() as u64));
    let Some(bits) = bits else {
        return Err(format!("its shape {shape:?} has more bytes than can be counted"));
    };
    if bits % 8 != 0 || bits / 8 != to - from {
        let found = to - from;
        return Err(format!(
            "{dtype:?} {shape:?} has {} bytes, its place has {found}",
            bits as f64 / 8.0
        ));
    }
    Ok([from, to])
}

/// The entries of the object, also those of one name.
fn entries(header: &[u8]) -> Result<Vec<(String, Value)>, serde_json::Error> {
    struct Entries;

    impl<'de> Visitor<'de> for Entries {
        type Value = Vec<(String, Value)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut all = Vec::new();
            while let Some(entry) = entries.next_entry()? {
                all.push(entry);
            }
            Ok(all)
        }
    }

    let mut parser = serde_json::Deserializer::from_slice(header);
    let all = parser.deserialize_map(Entries)?;
    parser.end()?;
    Ok(all)
}
