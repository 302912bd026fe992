"""What several of the scripts share: the model that they train, programs in processes of their own, the table."""

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
# A Llama of 32 million parameters.
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
LORA = dict(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")


def read_rows(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]


def write_rows(path, rows):
    with open(path, "w", encoding="utf-8") as out:
        for row in rows:
            out.write(json.dumps(row) + "\n")


def make_model(folder, texts, kind="LlamaForCausalLM", **settings):
    """The tokenizer, a byte-level BPE trained on the texts, and the model with random weights, in folder/model."""
    import torch
    import transformers
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=SIZES["vocab_size"], special_tokens=SPECIAL, show_progress=False,
                                   initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<|pad|>",
                                                eos_token="<|im_end|>", clean_up_tokenization_spaces=False)
    assert len(fast) == SIZES["vocab_size"]
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES, bos_token_id=None, eos_token_id=fast.eos_token_id,
                                      pad_token_id=fast.pad_token_id, **settings)
    getattr(transformers, kind)(config).save_pretrained(folder / "model")


def environment(threads, folder):
    return os.environ | {"RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads),
                         "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "cache")}


def watch(command, env, path=None):
    """Runs a program; the JSON lines that it prints, or writes to `path`, with the time when each came, its
    peak resident set in MiB, and what it said on standard error."""
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
        errors.seek(0)
        said = errors.read()
        if process.returncode != 0:
            sys.exit(f"{command} failed:\n{said[-4000:]}")
        if path:
            follower.join()
    return arrived, usage.ru_maxrss / 1024, said


class Table:
    """Speeds and peaks of sides over rounds, and ours beside them."""

    def __init__(self, unit):
        self.unit, self.speeds, self.peaks = unit, {}, {}

    def add(self, side, speed, peak):
        self.speeds.setdefault(side, []).append(speed)
        self.peaks.setdefault(side, []).append(peak)

    def print(self, theirs, ours="ours"):
        """Medians of speeds and largest peaks; the last line names the fastest of the others."""
        mid = {side: statistics.median(values) for side, values in self.speeds.items()}
        top = {side: max(values) for side, values in self.peaks.items()}
        print(f"| side | {self.unit} | ours to it | peak MiB | ours to it |")
        for side in mid:
            speed, memory = (f"{mid[ours] / mid[side]:.2f}", f"{top[ours] / top[side]:.2f}") \
                if ours in mid else ("", "")
            print(f"| {side} | {mid[side]:.4g} | {speed} | {top[side]:.0f} | {memory} |")
        if ours in mid and len(mid) > 1:
            best = max((side for side in mid if not side.startswith(ours)), key=mid.get)
            print(f"{theirs}'s fastest is {best}: {mid[ours] / mid[best]:.2f} times its speed, "
                  f"{top[ours] / top[best]:.2f} times its memory")
