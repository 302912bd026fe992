//! The batch at which a run stopped, as a file to look into.

use crate::data::{MicroBatch, Window};

/// Its name beside the run's other files.
pub(crate) const BAD_BATCH: &str = "bad_batch.jsonl";

/// The texts of a window, one JSON object each: their rows, ids and trained ids.
pub(crate) fn lines(window: &Window) -> String {
    let mut out = String::new();
    for MicroBatch { batch, targets, rows, .. } in &window.micro_batches {
        for (text, (places, rows)) in batch.places().into_iter().zip(rows).enumerate() {
            let ids: Vec<u32> =
                places.into_iter().flatten().map(|place| batch.ids()[place]).collect();
            let trained = targets.texts().iter().zip(targets.tokens());
            let trained: Vec<u32> =
                trained.filter(|(of, _)| **of == text).map(|(_, &id)| id).collect();
            let rows: Vec<String> = rows.iter().map(ToString::to_string).collect();
            let line = serde_json::json!({ "rows": rows, "ids": ids, "trained_ids": trained });
            out.push_str(&line.to_string());
            out.push('\n');
        }
    }
    out
}
