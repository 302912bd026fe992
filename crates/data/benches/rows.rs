//! Conversations read from JSON lines, compressed and not, and from Parquet. `benches/peers/rows.py`
//! reads the same files in Python and prints the ratio.

use std::path::{Path, PathBuf};

use criterion::{Criterion, Throughput, criterion_group};
use posttrain_data::{ReadOptions, RowWriter, Rows};
use serde_json::json;

const ROWS: usize = 20_000;
const FILES: [&str; 4] = ["rows.jsonl", "rows.jsonl.gz", "rows.jsonl.zst", "rows.parquet"];

/// Numbers of a linear congruential generator, below a limit.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % limit
    }
}

/// Text of sentences and lines, with some letters and signs that JSON and UTF-8 write in several bytes.
fn text(random: &mut Random, words: usize) -> String {
    let mut text = String::new();
    for _ in 0..words {
        for _ in 0..2 + random.below(7) {
            text.push(char::from(b'a' + random.below(26) as u8));
        }
        text.push_str(match random.below(40) {
            0 => ".\n",
            1 => " \"é\" ",
            2 => " 😀 ",
            _ => " ",
        });
    }
    text.push('.');
    text
}

/// Writes the same rows in each way.
fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let paths: Vec<PathBuf> = FILES.iter().map(|name| folder.join(name)).collect();
    let mut writers: Vec<RowWriter> =
        paths.iter().map(|path| RowWriter::create(path).expect("a file")).collect();
    let mut random = Random(1);
    for id in 0..ROWS {
        let mut messages = Vec::new();
        for _ in 0..=random.below(3) {
            let (question, answer) = (5 + random.below(60), 5 + random.below(200));
            messages.push(json!({"role": "user", "content": text(&mut random, question)}));
            messages.push(json!({"role": "assistant", "content": text(&mut random, answer)}));
        }
        let row = json!({"messages": messages, "id": id, "source": "bench", "score": 0.25});
        let row = row.as_object().expect("an object");
        for writer in &mut writers {
            writer.write_object(row).expect("space");
        }
    }
    for writer in writers {
        writer.finish().expect("space");
    }
    paths
}

fn read(path: &Path) {
    let rows = Rows::open([path], &ReadOptions::default()).expect("rows");
    let mut count = 0;
    for row in rows {
        count += usize::from(!row.expect("a row").metadata.is_empty());
    }
    assert_eq!(count, ROWS);
}

fn rows(criterion: &mut Criterion) {
    let paths = files();
    // Of all ways the size as plain text, so that their rates compare.
    let bytes = paths[0].metadata().expect("a file").len();
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Bytes(bytes)).sample_size(10);
    for (name, path) in FILES.iter().zip(&paths) {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| read(path));
        });
    }
    group.finish();
}

criterion_group!(benches, rows);

/// `--write` writes the files, `--read FILE` passes over one, whose processor time a caller can measure.
fn main() {
    let mut arguments = std::env::args().skip(1);
    match (arguments.next().as_deref(), arguments.next()) {
        (Some("--write"), _) => drop(files()),
        (Some("--read"), Some(path)) => read(Path::new(&path)),
        _ => {
            benches();
            Criterion::default().configure_from_args().final_summary();
        }
    }
}
