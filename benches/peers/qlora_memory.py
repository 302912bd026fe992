"""Peak memory of QLoRA beside LoRA, ours and PEFT's, for a bf16 checkpoint of 500 million parameters.

    python -m venv venv
    venv/bin/pip install transformers==5.23.0 peft==0.21.2 torch==2.15.0 bitsandbytes==0.50.2 accelerate==1.15.0
    cargo build --release --examples -p posttrain
    venv/bin/python benches/peers/qlora_memory.py [--threads 2] [--steps 3] [--length 256] [--sides ...]

The model is a Llama with random weights in bf16, made in a temporary folder: vocabulary 32000, hidden 1280,
26 layers, 20 heads of which 5 for keys, intermediate 3584, tied embeddings; 505 million parameters, 464 million of
them in the linear layers. Each step trains one row of `--length` tokens with LoRA r 16 on all linear layers, all
tokens trained, with gradient checkpointing. QLoRA holds the linear layers in NF4 with double quantisation.

    ours-lora, ours-qlora    examples/sft.rs
    peft-lora                transformers, PEFT and torch's AdamW
    peft-qlora               the same with bitsandbytes, whose CPU backend has NF4

Each side runs in a process of its own; the number is its peak resident set, which counts mapped pages of the
checkpoint while they are resident.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIZES = dict(vocab_size=32000, hidden_size=1280, intermediate_size=3584, num_hidden_layers=26,
             num_attention_heads=20, num_key_value_heads=5, max_position_embeddings=2048,
             tie_word_embeddings=True, bos_token_id=None, eos_token_id=1, pad_token_id=0)
LORA = dict(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear")
QUANTIZATION = dict(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)
SIDES = ["ours-lora", "ours-qlora", "peft-lora", "peft-qlora"]
SEED = 7


def words(row, length):
    """Text of `length` tokens, a word each, end token included."""
    return " ".join(f"w{(row * 7919 + place * 104729) % 31990}" for place in range(length - 1))


def make(folder, length, steps):
    """The checkpoint, with a tokenizer that gives each word an id, and the rows."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
    from transformers.utils.logging import disable_progress_bar
    disable_progress_bar()
    vocab = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{index}": index + 3 for index in range(31997)}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
                            clean_up_tokenization_spaces=False).save_pretrained(folder / "model")
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, dtype="bfloat16"))
    model.save_pretrained(folder / "model")
    size = sum(path.stat().st_size for path in (folder / "model").glob("*.safetensors"))
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters, {size / 2**20:.0f} MiB",
          flush=True)
    with open(folder / "rows.jsonl", "w") as out:
        for row in range(steps):
            out.write(json.dumps(dict(text=words(row, length))) + "\n")


def peer(side, folder, threads):
    """What this script does in a process of its own: a loop over the rows with PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    quantized = dict(quantization_config=BitsAndBytesConfig(**QUANTIZATION, bnb_4bit_compute_dtype=torch.bfloat16),
                     device_map="cpu") if side == "peft-qlora" else {}
    model = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.bfloat16, **quantized)
    if quantized:
        # PEFT's helper makes the embeddings f32; they are frozen here and stay in bf16, as in ours.
        for parameter in model.parameters():
            parameter.requires_grad = False
    model = get_peft_model(model, LoraConfig(**LORA, task_type="CAUSAL_LM"))
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable(dict(use_reentrant=False))
    model.train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=2e-5, weight_decay=0.0)
    tokenizer = AutoTokenizer.from_pretrained(folder / "model")
    for line in (folder / "rows.jsonl").read_text().splitlines():
        ids = torch.tensor([tokenizer(json.loads(line)["text"] + " </s>")["input_ids"]])
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(json.dumps(dict(loss=loss.item(), tokens=ids.numel())), flush=True)


def config(side, folder, length, steps):
    """The configuration of examples/sft.rs for the same work; JSON is YAML."""
    values = dict(model=str(folder / "model"), data=str(folder / "rows.jsonl"), output_dir=str(folder / side),
                  val_set_size=0, max_steps=steps, per_device_train_batch_size=1, max_length=length,
                  train_sampling_strategy="sequential", lr_scheduler_type="constant", eval_strategy="no",
                  save_strategy="no", gradient_checkpointing=True, seed=SEED, lora=LORA)
    if side == "ours-qlora":
        values["quantization"] = QUANTIZATION
    path = folder / f"{side}.yaml"
    path.write_text(json.dumps(values, indent=1))
    return path


def run(command, env):
    """What a program printed, and its peak resident set in MiB."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        errors.seek(0)
        if process.returncode != 0:
            sys.exit(f"{command} failed:\n{errors.read()[-4000:]}")
        return out.read(), usage.ru_maxrss / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--length", type=int, default=256, help="tokens of a row, end token included")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--peer", nargs=2, metavar=("SIDE", "FOLDER"))
    args = parser.parse_args()
    if args.make:
        return make(args.make, args.length, args.steps)
    if args.peer:
        return peer(args.peer[0], Path(args.peer[1]), args.threads)
    env = os.environ | {"RAYON_NUM_THREADS": str(args.threads), "OMP_NUM_THREADS": str(args.threads),
                        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subprocess.run([sys.executable, __file__, "--length", str(args.length), "--steps", str(args.steps),
                        "--make", temporary], env=env, check=True)
        peaks = {}
        for side in args.sides:
            if side.startswith("ours"):
                program = ROOT / "target/release/examples/sft"
                _, peaks[side] = run([program, "--config", config(side, folder, args.length, args.steps)], env)
                printed = (folder / side / "metrics.jsonl").read_text()
            else:
                printed, peaks[side] = run([sys.executable, __file__, "--threads", str(args.threads), "--peer", side,
                                            temporary], env)
            rows = [json.loads(line) for line in printed.splitlines() if line.startswith("{")]
            assert len(rows) == args.steps and all(row["tokens"] == args.length for row in rows), (side, rows)
            print(f"{side}: {peaks[side]:.0f} MiB, losses {[round(row['loss'], 3) for row in rows]}", flush=True)
        for small, large in [("ours-qlora", "ours-lora"), ("peft-qlora", "peft-lora"), ("ours-lora", "peft-lora"),
                             ("ours-qlora", "peft-qlora")]:
            if small in peaks and large in peaks:
                print(f"{small} / {large}: {peaks[small] / peaks[large]:.2f}")


if __name__ == "__main__":
    main()
