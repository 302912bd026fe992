"""DPO with LoRA on right and wrong solutions to GSM8K: ours against TRL on the CPU, speed and peak memory.

    python -m venv venv
    venv/bin/pip install trl==1.16.0 transformers==5.23.0 peft==0.21.2 torch==2.15.0 datasets==5.2.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/preference_gsm8k.py example_model_solutions.jsonl [--threads 2] [--rounds 2] \
        [--steps 24] [--sides ...]

`example_model_solutions.jsonl` is that of openai/grade-school-math (MIT); `examples/data/gsm8k_pairs.py` makes pairs of
one question, one right and one wrong solution of it. All sides train on the same pairs, 8 to a step, each once. The
model is the Llama of 32 million random parameters of `support.py`, with a byte-level BPE tokenizer trained on the
rows; LoRA r 16 on all linear layers; DPO's sigmoid loss, beta 0.1; a learning rate of 1e-3, so that losses show that
all sides learn; f32; two threads.

All sides run in turn, each in a process of its own:

    trl                      TRL 1.16 with its other defaults but for bf16: batch of 8 pairs, padded, gradient
                             checkpointing
    trl-plain                the same without checkpointing
    trl-grouped              without checkpointing, pairs of like length together (by characters: TRL cannot tell the
                             lengths of pairs by itself, so the script gives it a column)
    trl-narrow               without checkpointing, batches of 2 pairs, four to a step, of like length
    trl-precomputed          without checkpointing, the reference's log-probabilities computed before the first step
    trl-precomputed-grouped  that with pairs of like length together
    ours                     examples/preference.rs, without checkpointing
    ours-precomputed         that with precompute_ref_log_probs

Pairs a second are counted from outside: the parent notes when each step's line arrives and leaves out the first
steps. Where the reference is computed before, its time is added in proportion to the pairs counted, because each pair
is trained once here; the time of the steps alone is printed too. (With several epochs it would be less; so would ours.)
The time that `ours-precomputed` needs before its first step cannot be told from outside and is taken from its start to
its first step, without that step. Memory is the peak resident set of the process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from support import LORA, ROOT, Table, environment, make_model, read_rows, watch, write_rows

BATCH, LEARNING_RATE = 8, 1e-3
PLAIN = dict(gradient_checkpointing=False)
GROUPED = PLAIN | dict(train_sampling_strategy="group_by_length", remove_unused_columns=False)
PRECOMPUTED = dict(precompute_ref_log_probs=True)
SIDES = {
    "trl": {},
    "trl-plain": PLAIN,
    "trl-grouped": GROUPED,
    "trl-narrow": GROUPED | dict(per_device_train_batch_size=2, gradient_accumulation_steps=4),
    "trl-precomputed": PLAIN | PRECOMPUTED,
    "trl-precomputed-grouped": GROUPED | PRECOMPUTED,
    "ours": PLAIN,
    "ours-precomputed": PLAIN | PRECOMPUTED,
}


def make(folder, solutions, count):
    """The pairs, the tokenizer and the model."""
    subprocess.run([sys.executable, ROOT / "examples/data/gsm8k_pairs.py", solutions, "--out", folder / "all",
                    "--held-out", "0"], check=True, stdout=subprocess.DEVNULL)
    rows = read_rows(folder / "all_pairs.jsonl")
    assert len(rows) >= count, f"only {len(rows)} pairs for {count}: fewer --steps"
    write_rows(folder / "rows.jsonl", [{key: row[key] for key in ["prompt", "chosen", "rejected"]}
                                       for row in rows[:count]])
    make_model(folder, (row[key][0]["content"] for row in rows for key in ["prompt", "chosen", "rejected"]))
    print(len(rows), "pairs, of which", count, "are trained")


def peer(side, folder, steps, threads):
    """What this script does in a process of its own: TRL, printing a line after each step."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from transformers.utils.logging import disable_progress_bar
    from trl import DPOConfig, DPOTrainer
    torch.set_num_threads(threads)
    disable_progress_bars()
    disable_progress_bar()

    class Trainer(DPOTrainer):
        def _precompute_ref_logps(self, *args, **kwargs):
            start = time.monotonic()
            out = super()._precompute_ref_logps(*args, **kwargs)
            print(json.dumps(dict(precomputed=time.monotonic() - start)), flush=True)
            return out

        def log(self, logs, *args, **kwargs):
            if "loss" in logs:
                print(json.dumps(dict(loss=logs["loss"])), flush=True)

    rows = read_rows(folder / "rows.jsonl")
    if "grouped" in side or "narrow" in side:
        for row in rows:
            row["length"] = len(row["prompt"][0]["content"]) + max(len(row[key][0]["content"])
                                                                   for key in ["chosen", "rejected"])
    settings = dict(per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE) | SIDES[side]
    Trainer(model=str(folder / "model"), train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
            args=DPOConfig(str(folder / "out"), max_steps=steps, bf16=False, use_cpu=True, logging_steps=1,
                           save_strategy="no", disable_tqdm=True, report_to="none", **settings)).train()


def config(side, folder, steps):
    """The configuration of examples/preference.rs for the same work, in TRL's and PEFT's names; JSON is YAML."""
    out = folder / side
    values = dict(model=str(folder / "model"), data=str(folder / "rows.jsonl"), output_dir=str(out), val_set_size=0,
                  loss=dict(type="dpo", beta=0.1), per_device_train_batch_size=BATCH, learning_rate=LEARNING_RATE,
                  max_steps=steps, eval_strategy="no", save_strategy="no", lora=LORA, **SIDES[side])
    (folder / f"{side}.yaml").write_text(json.dumps(values, indent=1))
    return folder / f"{side}.yaml", out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("solutions", help="example_model_solutions.jsonl")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm", type=int, default=4, help="steps that do not count")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--peer", nargs=2, metavar=("SIDE", "FOLDER"))
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.make:
        return make(args.make, args.solutions, BATCH * args.steps)
    if args.peer:
        return peer(args.peer[0], Path(args.peer[1]), args.steps, args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = environment(args.threads, folder)
        # In a process of its own: what this one holds would count in the peak of those that it starts.
        subprocess.run([sys.executable, __file__, args.solutions, "--steps", str(args.steps), "--make", str(folder)],
                       env=env, check=True)
        table = Table("pairs/s")
        for round_ in range(args.rounds):
            for side in args.sides:
                start = time.monotonic()
                if side.startswith("ours"):
                    path, out = config(side, folder, args.steps)
                    subprocess.run(["rm", "-rf", str(out)], check=True)
                    program = ROOT / "target/release/examples/preference"
                    arrived, peak, _ = watch([program, "--config", path], env, out / "metrics.jsonl")
                else:
                    # TRL keeps what it has computed; each round has to do the work.
                    env["HF_DATASETS_CACHE"] = str(folder / f"cache-{side}-{round_}")
                    command = [sys.executable, __file__, args.solutions, "--threads", str(args.threads),
                               "--steps", str(args.steps), "--peer", side, str(folder)]
                    arrived, peak, _ = watch(command, env)
                before = sum(row.get("precomputed", 0.0) for _, row in arrived)
                arrived = [line for line in arrived if "precomputed" not in line[1]]
                assert len(arrived) == args.steps, (side, len(arrived))
                counted = arrived[args.warm:]
                pairs, seconds = BATCH * len(counted), counted[-1][0] - arrived[args.warm - 1][0]
                if side == "ours-precomputed":
                    before = arrived[0][0] - start - seconds / len(counted)
                whole = seconds + before * len(counted) / args.steps
                table.add(side, pairs / whole, peak)
                loss = statistics.mean(row["loss"] for _, row in counted[-5:])
                alone = f" ({pairs / seconds:.2f} without {before:.1f} s before the first step)" if before else ""
                print(f"round {round_ + 1} {side}: {pairs / whole:.2f} pairs/s{alone}, {peak:.0f} MiB, "
                      f"loss {arrived[0][1]['loss']:.4f} to {loss:.4f}", flush=True)
        table.print("TRL")


if __name__ == "__main__":
    main()
