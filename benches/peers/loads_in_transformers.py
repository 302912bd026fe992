"""Whether a model or an adapter that examples/sft.rs saved is the same model in transformers and PEFT.

    python -m venv venv && venv/bin/pip install transformers==5.23.0 peft==0.21.2 torch==2.15.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/loads_in_transformers.py MODEL [--adapter ADAPTER] [--texts FILE.jsonl]

MODEL is the folder of a model, ADAPTER one that was trained on it. Both sides give the natural-log
probabilities of the tokens of the texts in f32: examples/score.rs, and transformers (with PEFT). They must agree
within 1e-4 at every token, and the loading must neither miss a weight nor leave one over. An adapter must also
change the model: with it switched off the numbers have to differ. The exit status says whether all that holds.
Without a file of texts (rows with `ids` or `text`), random ids are scored.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-4


def texts(model, path):
    """Lists of ids."""
    if path is None:
        vocab = json.loads((model / "config.json").read_text())["vocab_size"]
        rng = random.Random(3)
        return [[rng.randrange(vocab) for _ in range(length)] for length in [2, 17, 48, 96, 160]]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    tokenizer = AutoTokenizer.from_pretrained(model) if any("text" in row for row in rows) else None
    return [row["ids"] if "ids" in row else tokenizer(row["text"])["input_ids"] for row in rows]


def ours(model, adapter, rows):
    """What examples/score.rs gives for each list of ids."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder) / "in.jsonl", Path(folder) / "out.jsonl"
        given.write_text("".join(json.dumps(dict(ids=ids)) + "\n" for ids in rows))
        command = [ROOT / "target/release/examples/score", "--model", model, "--input", given, "--output", found]
        subprocess.run(command + (["--adapter", adapter] if adapter else []), check=True)
        return [json.loads(line)["logprobs"] for line in found.read_text().splitlines()]


def load(model, adapter):
    """The model in f32, with the adapter; ends the program if a key is missing or left over."""
    base, report = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, output_loading_info=True)
    bad = {key: sorted(map(str, value)) for key, value in report.items() if value}
    if bad:
        sys.exit(f"{model} does not load cleanly: {bad}")
    if adapter is None:
        return base.eval()
    from peft import LoraConfig, PeftConfig, get_peft_model
    from peft.utils import load_peft_weights, set_peft_model_state_dict
    config = PeftConfig.from_pretrained(adapter)
    if not isinstance(config, LoraConfig):
        sys.exit(f"{adapter} is of the type {config.peft_type}, expected LORA")
    wrapped = get_peft_model(base, config)
    report = set_peft_model_state_dict(wrapped, load_peft_weights(str(adapter), device="cpu"))
    missing = [key for key in report.missing_keys if "lora_" in key or "modules_to_save" in key]
    if missing or report.unexpected_keys:
        sys.exit(f"{adapter} does not load cleanly: missing {missing}, left over {report.unexpected_keys}")
    return wrapped.eval()


@torch.inference_mode()
def theirs(model, rows):
    """The same by transformers."""
    found = []
    for ids in rows:
        logprobs = model(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
        found.append(logprobs.gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist())
    return found


def apart(some, others):
    """The largest difference, over all tokens of all texts."""
    assert [len(a) for a in some] == [len(b) for b in others]
    return max(abs(x - y) for a, b in zip(some, others) for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--texts", type=Path, help="rows with `ids` or `text`")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    rows = texts(args.model, args.texts)
    model = load(args.model, args.adapter)
    expected = theirs(model, rows)
    found = ours(args.model, args.adapter, rows)
    far = apart(found, expected)
    print(f"{sum(map(len, found))} tokens of {len(rows)} texts, largest difference {far:.1e}")
    if args.adapter:
        with model.disable_adapter():
            moved = apart(theirs(model, rows), expected)
        print(f"the adapter moves them by up to {moved:.1e}")
        if moved < 10 * TOLERANCE:
            sys.exit("the adapter changes nothing that could be seen")
    if not far < TOLERANCE:
        sys.exit(f"expected below {TOLERANCE:.0e}")


if __name__ == "__main__":
    main()
