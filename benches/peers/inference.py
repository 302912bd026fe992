"""Prefill, decoding, memory and start-up: posttrain-model against transformers on the CPU.

    python -m venv venv && venv/bin/pip install transformers==5.23.0 torch==2.15.0
    venv/bin/python benches/peers/inference.py [--threads 2] [--rounds 5]

The work is the same on both sides, in f32, with random weights: a Llama of 32 million parameters
(vocabulary 8192, hidden 512, 8 layers, 8 heads of which 4 for keys, intermediate 1408). Both sides run
in turn, each in a process of its own, so that its peak memory (VmHWM) is its own: our bench program
`crates/model/benches/inference.rs`, then this script with `--peer`. The first measurement of each process
is a warm-up. The ratio is that of the medians over all rounds. Prefill is what generation does up to the
first token of each answer; the prompts of unequal lengths are padded on the left there. Start-up is the time from an empty process
(interpreter and libraries already in the file cache) to the logits after a prompt of 16 tokens, for a
checkpoint of 1 GB.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SMALL = dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
             num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=2048,
             tie_word_embeddings=False, eos_token_id=None, bos_token_id=None, pad_token_id=None)
# 1 GB in f32.
LARGE = SMALL | dict(vocab_size=32000, hidden_size=1024, intermediate_size=2816,
                     num_hidden_layers=16, num_attention_heads=16, num_key_value_heads=8)
PREFILL = {"prefill 1 x 512": [512], "prefill 8 x 128": [128] * 8,
           "prefill 8 x 32 to 256": [128, 32, 256, 96, 224, 64, 192, 160]}
MODES = {"prefill": 8, "forward": 8, "decode": 6}


def prompt(length, seed):
    return [(i * 7919 + seed * 104729) % 8000 + 3 for i in range(length)]


def peak_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def peer(mode, folder, rounds, threads):
    """What this script does in its own process: transformers."""
    import torch
    from transformers import AutoModelForCausalLM
    torch.set_num_threads(threads)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def timed(name, tokens, work):
        for _ in range(rounds):
            start = time.perf_counter()
            work()
            seconds = time.perf_counter() - start
            print(json.dumps(dict(name=name, tokens_per_second=tokens / seconds, seconds=seconds,
                                  peak_mib=peak_mib())), flush=True)

    with torch.inference_mode():
        if mode == "prefill":
            for name, lengths in PREFILL.items():
                longest = max(lengths)
                ids = torch.tensor([[0] * (longest - length) + prompt(length, seed)
                                    for seed, length in enumerate(lengths)])
                padding = dict()
                if min(lengths) < longest:
                    mask = torch.tensor([[0] * (longest - n) + [1] * n for n in lengths])
                    places = (mask.cumsum(1) - 1).clamp(min=0)
                    padding = dict(attention_mask=mask, position_ids=places)
                timed(name, sum(lengths),
                      lambda: model(ids, use_cache=True, logits_to_keep=1, **padding)
                      .logits.argmax(-1))
        elif mode == "forward":
            ids = torch.tensor([prompt(256, seed) for seed in range(4)])
            timed("forward 4 x 256", 4 * 256, lambda: model(ids, use_cache=False))
        elif mode == "decode":
            for count in [8, 1]:
                ids = torch.tensor([prompt(16, seed) for seed in range(count)])
                mask = torch.ones_like(ids)
                timed(f"decode {count} x 128", count * 128, lambda: model.generate(
                    ids, attention_mask=mask, do_sample=False, max_new_tokens=128,
                    min_new_tokens=128, pad_token_id=0))
        elif mode == "startup":
            model(torch.tensor([prompt(16, 0)]), use_cache=True, logits_to_keep=1)
            print(json.dumps(dict(name="start-up", finished_at=time.time(), peak_mib=peak_mib())))


def make(folder, sizes):
    """A checkpoint with random weights."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**sizes)).save_pretrained(folder)
    return sum(p.stat().st_size for p in Path(folder).glob("*.safetensors"))


def build():
    """Path of our bench program."""
    out = subprocess.run(
        ["cargo", "bench", "-q", "--workspace", "--bench", "inference", "--no-run",
         "--message-format=json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    built = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
    return next(b["executable"] for b in built if b.get("executable"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peer", nargs=3, metavar=("MODE", "FOLDER", "ROUNDS"))
    args = parser.parse_args()
    if args.peer:
        mode, folder, rounds = args.peer
        return peer(mode, folder, int(rounds), args.threads)
    program = build()
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads), "TRANSFORMERS_VERBOSITY": "error",
                        "HF_HUB_OFFLINE": "1"}

    def run(command):
        out = subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL).stdout
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def both(mode, folder, rounds):
        this = [sys.executable, __file__, "--threads", str(args.threads)]
        for side, command in [("ours", [program]), ("transformers", [*this, "--peer"])]:
            started = time.time()
            yield side, started, run([*command, mode, folder, str(rounds)])

    with tempfile.TemporaryDirectory() as small, tempfile.TemporaryDirectory() as large:
        print(f"32M: {make(small, SMALL) / 1e6:.0f} MB, 1 GB: {make(large, LARGE) / 1e6:.0f} MB")
        found = {}
        for _ in range(args.rounds):
            for mode, rounds in MODES.items():
                for side, _, rows in both(mode, small, rounds):
                    seen = set()
                    for row in rows:
                        entry = found.setdefault(row["name"], {}).setdefault(side, ([], []))
                        entry[1].append(row["peak_mib"])
                        if row["name"] in seen:  # the first is a warm-up
                            entry[0].append(row["tokens_per_second"])
                        seen.add(row["name"])
            for side, started, rows in both("startup", large, 1):
                entry = found.setdefault("start-up 1 GB (1/s)", {}).setdefault(side, ([], []))
                entry[0].append(1 / (rows[0]["finished_at"] - started))
                entry[1].append(rows[0]["peak_mib"])
        print("| work | ours | transformers | ratio | ours MiB | transformers MiB | memory |")
        for name, sides in found.items():
            (ours, our_mib), (theirs, their_mib) = sides["ours"], sides["transformers"]
            a, b = statistics.median(ours), statistics.median(theirs)
            m, n = max(our_mib), max(their_mib)
            print(f"| {name} | {a:.1f} | {b:.1f} | {a / b:.2f} | {m:.0f} | {n:.0f} | {m / n:.2f} |")


if __name__ == "__main__":
    main()
