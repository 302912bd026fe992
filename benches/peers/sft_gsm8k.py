"""Fine-tuning with LoRA on GSM8K: ours against TRL on the CPU, speed and peak memory.

    python -m venv venv
    venv/bin/pip install trl==1.16.0 transformers==5.23.0 peft==0.21.2 torch==2.15.0 datasets==5.2.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/sft_gsm8k.py train.jsonl [--threads 2] [--rounds 2] [--steps 24]

`train.jsonl` is GSM8K's (7,473 rows, openai/grade-school-math, MIT). The rows become conversations of one
question and one answer, and only the answer is trained. The model is a Llama of 32 million random parameters
(vocabulary 8192, hidden 512, 8 layers, 8 heads of which 4 for keys, intermediate 1408) with a byte-level BPE
tokenizer trained here on the rows; LoRA r 16 on all linear layers; f32; two threads.

All sides run in turn, each in a process of its own:

    trl          TRL 1.16 with its defaults but for bf16: batch of 8 rows, padded, gradient checkpointing
    trl-plain    the same without checkpointing
    trl-grouped  the same without checkpointing, rows of like length together
    trl-packed   packed by best fit into rows of 512, four to a batch, no checkpointing
    trl-narrow   packed into rows of 512, one to a batch, four batches to a step, no checkpointing
    ours         examples/sft.rs, packed into rows of 512, four to a batch

On the CPU attention over a packed batch is dense, so the packed batch is not always TRL's best: the last
ratio is to the fastest of TRL's five. Trained tokens a second are counted from outside: the parent notes when each
step's line arrives and leaves out the first steps. Memory is the peak resident set of the process.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from support import LORA, ROOT, Table, environment, make_model, read_rows, watch, write_rows

PACKED = dict(packing=True, max_length=512, per_device_train_batch_size=4)
PLAIN = dict(gradient_checkpointing=False)
SIDES = {
    "trl": {},
    "trl-plain": PLAIN,
    "trl-grouped": PLAIN | dict(train_sampling_strategy="group_by_length"),
    "trl-packed": PLAIN | PACKED,
    "trl-narrow": PLAIN | PACKED | dict(per_device_train_batch_size=1, gradient_accumulation_steps=4),
    "ours": PLAIN | PACKED,
}


def make(folder, train):
    """The rows as conversations, the tokenizer and the model."""
    rows = read_rows(train)
    write_rows(folder / "rows.jsonl", [dict(messages=[dict(role="user", content=row["question"]),
                                                      dict(role="assistant", content=row["answer"])]) for row in rows])
    make_model(folder, (row[key] for row in rows for key in ["question", "answer"]))
    print(len(rows), "rows")


def peer(side, folder, steps, threads):
    """What this script does in a process of its own: TRL, printing a line after each step."""
    import torch
    from datasets import Dataset, disable_progress_bars
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer
    from transformers.utils.logging import disable_progress_bar
    torch.set_num_threads(threads)
    disable_progress_bars()
    disable_progress_bar()

    class Trainer(SFTTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            self.trained = int(num_items_in_batch)
            self.seen = getattr(self, "seen", 0) + inputs["input_ids"].numel()
            return super().training_step(model, inputs, num_items_in_batch)

        def log(self, logs, *args, **kwargs):
            if "loss" in logs:
                print(json.dumps(dict(loss=logs["loss"], trained_tokens=self.trained, places=self.seen)), flush=True)
                self.seen = 0

    rows = read_rows(folder / "rows.jsonl")
    Trainer(model=str(folder / "model"), train_dataset=Dataset.from_list(rows),
            peft_config=LoraConfig(**LORA, task_type="CAUSAL_LM"),
            args=SFTConfig(str(folder / "out"), max_steps=steps, assistant_only_loss=True, bf16=False, use_cpu=True,
                           logging_steps=1, save_strategy="no", disable_tqdm=True, **SIDES[side])).train()


def config(folder, steps):
    """The configuration of examples/sft.rs for the same work, in TRL's and PEFT's names; JSON is YAML."""
    out = folder / "ours"
    values = dict(model=str(folder / "model"), data=str(folder / "rows.jsonl"), output_dir=str(out), val_set_size=0,
                  max_steps=steps, eval_strategy="no", save_strategy="no", assistant_only_loss=True, lora=LORA,
                  **SIDES["ours"])
    (folder / "ours.yaml").write_text(json.dumps(values, indent=1))
    return folder / "ours.yaml", out


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("train", help="GSM8K's train.jsonl")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--warm", type=int, default=4, help="steps that do not count")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=list(SIDES))
    parser.add_argument("--peer", nargs=2, metavar=("SIDE", "FOLDER"))
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    args = parser.parse_args()
    if args.make:
        return make(args.make, args.train)
    if args.peer:
        return peer(args.peer[0], Path(args.peer[1]), args.steps, args.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env = environment(args.threads, folder)
        # In a process of its own: what this one holds would count in the peak of those that it starts.
        subprocess.run([sys.executable, __file__, args.train, "--make", str(folder)], env=env, check=True)
        table = Table("trained tokens/s")
        for round_ in range(args.rounds):
            for side in args.sides:
                if side == "ours":
                    path, out = config(folder, args.steps)
                    subprocess.run(["rm", "-rf", str(out)], check=True)
                    program = ROOT / "target/release/examples/sft"
                    arrived, peak, _ = watch([program, "--config", path], env, out / "metrics.jsonl")
                else:
                    command = [sys.executable, __file__, args.train, "--threads", str(args.threads),
                               "--steps", str(args.steps), "--peer", side, str(folder)]
                    arrived, peak, _ = watch(command, env)
                assert len(arrived) == args.steps, (side, len(arrived))
                counted = arrived[args.warm:]
                tokens = sum(row["trained_tokens"] for _, row in counted)
                seconds = counted[-1][0] - arrived[args.warm - 1][0]
                table.add(side, tokens / seconds, peak)
                loss = statistics.mean(row["loss"] for _, row in counted[-5:])
                print(f"round {round_ + 1} {side}: {tokens / seconds:.1f} trained tokens/s, {peak:.0f} MiB, "
                      f"loss {arrived[0][1]['loss']:.3f} to {loss:.3f}", flush=True)
        table.print("TRL")


if __name__ == "__main__":
    main()
