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
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = dict(vocab_size=8192, hidden_size=512, intermediate_size=1408, num_hidden_layers=8,
             num_attention_heads=8, num_key_value_heads=4, max_position_embeddings=2048,
             tie_word_embeddings=False)
SPECIAL = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = """\
{%- for message in messages %}
{{- '<|im_start|>' + message['role'] + '\\n' }}
{%- if message['role'] == 'assistant' %}
{%- generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}
{%- else %}
{{- message['content'] + '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""
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
LORA = dict(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")


def make(folder, train):
    """The rows as conversations, the tokenizer and the model."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    rows = [json.loads(line) for line in Path(train).read_text(encoding="utf-8").splitlines()]
    with open(folder / "rows.jsonl", "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(dict(messages=[dict(role="user", content=row["question"]),
                                                dict(role="assistant", content=row["answer"])])) + "\n")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        (row[key] for row in rows for key in ["question", "answer"]),
        trainers.BpeTrainer(vocab_size=SIZES["vocab_size"], special_tokens=SPECIAL, show_progress=False,
                            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|im_end|>",
                                   clean_up_tokenization_spaces=False)
    assert len(fast) == SIZES["vocab_size"]
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "model")
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**SIZES, bos_token_id=None, eos_token_id=fast.eos_token_id,
                                 pad_token_id=fast.pad_token_id)).save_pretrained(folder / "model")
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

    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
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


def watch(command, env, path=None):
    """Runs a program; the JSON lines that it prints, or writes to `path`, with the time when each came, and
    its peak resident set in MiB."""
    arrived, done = [], threading.Event()

    def follow(path):
        while not path.exists() and not done.wait(0.01):
            pass
        with open(path) as lines:
            rest = ""
            while True:
                over = done.is_set()
                rest += lines.read()
                *whole, rest = rest.split("\n")
                arrived.extend((time.monotonic(), json.loads(line)) for line in whole)
                if over:
                    return
                time.sleep(0.005)

    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=env, text=True, stderr=errors,
                                   stdout=subprocess.DEVNULL if path else subprocess.PIPE)
        if path:
            follower = threading.Thread(target=follow, args=[path])
            follower.start()
        else:
            for line in process.stdout:
                if line.startswith("{"):
                    arrived.append((time.monotonic(), json.loads(line)))
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        done.set()
        if path and process.returncode == 0:
            follower.join()
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{command} failed:\n{errors.read()[-4000:]}")
    return arrived, usage.ru_maxrss / 1024


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
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads),
                        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        env["HF_HOME"] = str(folder / "cache")
        # In a process of its own: what this one holds would count in the peak of those that it starts.
        subprocess.run([sys.executable, __file__, args.train, "--make", str(folder)], env=env, check=True)
        speeds, peaks, losses = {}, {}, {}
        for round_ in range(args.rounds):
            for side in args.sides:
                if side == "ours":
                    path, out = config(folder, args.steps)
                    subprocess.run(["rm", "-rf", str(out)], check=True)
                    program = ROOT / "target/release/examples/sft"
                    arrived, peak = watch([program, "--config", path], env, out / "metrics.jsonl")
                else:
                    arrived, peak = watch([sys.executable, __file__, args.train, "--threads", str(args.threads),
                                           "--steps", str(args.steps), "--peer", side, str(folder)], env)
                assert len(arrived) == args.steps, (side, len(arrived))
                counted = arrived[args.warm:]
                tokens = sum(row["trained_tokens"] for _, row in counted)
                seconds = counted[-1][0] - arrived[args.warm - 1][0]
                speeds.setdefault(side, []).append(tokens / seconds)
                peaks.setdefault(side, []).append(peak)
                losses[side] = statistics.mean(row["loss"] for _, row in counted[-5:])
                print(f"round {round_ + 1} {side}: {tokens / seconds:.1f} trained tokens/s, {peak:.0f} MiB, "
                      f"loss {arrived[0][1]['loss']:.3f} to {losses[side]:.3f}", flush=True)
        print("| side | trained tokens/s | ours to it | peak MiB | ours to it |")
        mid = {side: statistics.median(values) for side, values in speeds.items()}
        top = {side: max(values) for side, values in peaks.items()}
        for side in mid:
            speed, memory = (f"{mid['ours'] / mid[side]:.2f}", f"{top['ours'] / top[side]:.2f}") \
                if "ours" in mid else ("", "")
            print(f"| {side} | {mid[side]:.1f} | {speed} | {top[side]:.0f} | {memory} |")
        if "ours" in mid and len(mid) > 1:
            best = max((side for side in mid if side != "ours"), key=mid.get)
            print(f"TRL's fastest is {best}: {mid['ours'] / mid[best]:.2f} times its speed, "
                  f"{top['ours'] / top[best]:.2f} times its memory")


if __name__ == "__main__":
    main()
