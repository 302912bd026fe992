"""Whether a reward model or its adapter that examples/reward.rs saved scores the same in transformers and PEFT.

    python -m venv venv && venv/bin/pip install transformers==5.23.0 peft==0.21.2 torch==2.15.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/rewards_in_transformers.py MODEL PAIRS.jsonl [--adapter ADAPTER]

MODEL is the folder of an outcome model (or of the language model below ADAPTER), PAIRS.jsonl has rows `prompt`,
`chosen`, `rejected` of messages. Both sides score all answers in f32: examples/score_reward.rs, and transformers'
AutoModelForSequenceClassification in padded batches. They must agree within 1e-4, and the loading must neither miss a
weight nor leave one over. The exit status says whether all that holds.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForSequenceClassification, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def ours(model, adapter, rows):
    """What examples/score_reward.rs gives for each conversation."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        given.write_text("".join(json.dumps(dict(messages=row)) + "\n" for row in rows))
        command = [ROOT / "target/release/examples/score_reward", "--model", model, "--input", given, "--output", found]
        subprocess.run(command + (["--adapter", adapter] if adapter else []), check=True)
        return [json.loads(line)["score"] for line in found.read_text().splitlines()]


def load(model, adapter, pad):
    """The model in f32, with the adapter; ends the program if a key is missing or left over."""
    extra = dict(num_labels=1, pad_token_id=pad) if adapter else {}
    base, report = AutoModelForSequenceClassification.from_pretrained(
        model, dtype=torch.float32, output_loading_info=True, **extra)
    bad = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if adapter:
        # The head comes with the adapter.
        bad.pop("missing_keys", None)
        bad.pop("unexpected_keys", None)
    if bad:
        sys.exit(f"{model} does not load cleanly: {bad}")
    if adapter is None:
        return base.eval()
    from peft import PeftConfig, get_peft_model
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    config = PeftConfig.from_pretrained(adapter)
    assert config.task_type == "SEQ_CLS", config.task_type
    wrapped = get_peft_model(base, config)
    report = set_peft_model_state_dict(wrapped, load_peft_weights(str(adapter), device="cpu"))
    missing = [key for key in report.missing_keys if "lora_" in key or "modules_to_save" in key]
    if missing or report.unexpected_keys:
        sys.exit(f"{adapter} does not load cleanly: missing {missing}, left over {report.unexpected_keys}")
    return wrapped.eval()


@torch.inference_mode()
def theirs(model, tokenizer, rows, pad):
    """The same by transformers, in batches of eight."""
    ids = [tokenizer.apply_chat_template(row, return_dict=True)["input_ids"] for row in rows]
    found = []
    for start in range(0, len(ids), 8):
        part = ids[start:start + 8]
        longest = max(map(len, part))
        padded = torch.tensor([row + [pad] * (longest - len(row)) for row in part])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in part])
        found += model(input_ids=padded, attention_mask=mask).logits[:, 0].tolist()
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("--adapter", type=Path)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    pairs = [json.loads(line) for line in args.pairs.read_text(encoding="utf-8").splitlines()]
    rows = [pair["prompt"] + pair[answer] for pair in pairs for answer in ["chosen", "rejected"]]
    tokenizer = AutoTokenizer.from_pretrained(args.adapter or args.model)
    config = json.loads((args.model / "config.json").read_text())
    pad = config.get("pad_token_id")
    pad = config["eos_token_id"] if pad is None else pad
    expected = theirs(load(args.model, args.adapter, pad), tokenizer, rows, pad)
    found = ours(args.model, args.adapter, rows)
    far = max(abs(a - b) for a, b in zip(found, expected, strict=True))
    print(f"{len(rows)} answers, scores {min(found):.3f} to {max(found):.3f}, largest difference {far:.1e}")
    if not far < TOLERANCE:
        sys.exit(f"expected below {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
