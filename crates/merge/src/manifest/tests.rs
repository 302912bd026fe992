//! No byte of a manifest can be cut off or changed so that reading it panics.

use super::*;

/// A manifest of one tensor.
fn text() -> Vec<u8> {
    let record =
        TensorRecord { dtype: Dtype::BF16, shape: vec![2, 3], blake3: blake3::hash(b"bytes") };
    let tensors = BTreeMap::from([("w".to_owned(), record)]);
    let contents = Contents::new(BTreeMap::new(), Some(blake3::hash(b"{}")), tensors);
    let input = InputRecord {
        name: "org/a".to_owned(),
        path: "/a".into(),
        lora: None,
        role: Role::Base,
        contents: contents.clone(),
        adapter: None,
    };
    let manifest = Manifest {
        format: FORMAT,
        version: "0.1.0".to_owned(),
        created: "2026-01-02T03:04:05Z".to_owned(),
        seed: 7,
        method: "linear".to_owned(),
        config: serde_json::json!({"merge_method": "linear", "models": [{"model": "org/a"}]}),
        options: Options {
            arithmetic: "float32".to_owned(),
            shard_size: 1000,
            dtype: None,
            out_dtype: Some(Dtype::BF16),
        },
        inputs: vec![input],
        output: OutputRecord { contents, from: BTreeMap::from([("w".to_owned(), vec![0])]) },
        coverage: Coverage {
            merged: 1,
            copied: 0,
            unused: vec![Unused { input: 0, tensor: "w".to_owned(), reason: "-".to_owned() }],
        },
    };
    serde_json::to_vec(&manifest).expect("a manifest is JSON")
}

#[test]
fn cut_anywhere() {
    let text = text();
    let path = Path::new("dir/merge.json");
    assert!(Manifest::parse(&text, path).is_ok());
    for end in 0..text.len() {
        let error = Manifest::parse(&text[..end], path).expect_err("a part is no manifest");
        assert!(error.to_string().starts_with("dir/merge.json: "), "{error}");
    }
}

#[test]
fn changed_anywhere() {
    let text = text();
    let path = Path::new("dir/merge.json");
    let (mut read, mut refused) = (0, 0);
    for place in 0..text.len() {
        for byte in [b'"', b'0', b'}', b'-', 0xff, text[place] ^ 1] {
            let mut text = text.clone();
            text[place] = byte;
            match Manifest::parse(&text, path) {
                // Names, numbers and words that may be others.
                Ok(_) => read += 1,
                Err(error) => {
                    assert!(error.to_string().starts_with("dir/merge.json: "), "{error}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > read, "{refused} {read}");
}
