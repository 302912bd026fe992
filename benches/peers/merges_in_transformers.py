"""Merged checkpoints in transformers: each loads with nothing missing, unexpected or of another shape, and generates.

    python -m venv venv && venv/bin/pip install torch==2.15.0 transformers==5.24.0
    cargo build -p posttrain --no-default-features --features merge --example merge
    venv/bin/python benches/peers/merges_in_transformers.py [--merge PROGRAM] [--only BEGINNING...]

Merges the configurations of `tests/fixtures/merge/cases` (all of them but those that are to fail and those of bare
files: every method, slices, modules, adapters, merged vocabularies, tied and untied heads, several types and files,
vision-language models, encoders) and some more, below, with the example program. Of each output:

- the class of its `architectures` loads it; missing, unexpected and mismatched keys are failures,
- every parameter is finite and has the bytes of the file,
- a causal model generates a token, an encoder runs,
- its tokenizer, where it has one, gives ids below the number of rows, and decodes to the text what it encoded. A text
  that is not the same again is a failure, unless an input's tokenizer does not give it back either; with a union,
  whose added tokens match anywhere, it is reported.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests/fixtures/merge"
TEXTS = ["the cat sat on the mat", "a man had a hat in the tent", "dogs dig holes", "tin on tan mats"]
MORE = {
    "franken_of_two": """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 3]}]
- sources: [{model: b, layer_range: [1, 4]}]
- sources: [{model: a, layer_range: [2, 4]}]
""",
    "franken_of_tied": """
merge_method: passthrough
slices:
- sources: [{model: tied_a, layer_range: [0, 2]}]
- sources: [{model: tied_b, layer_range: [0, 2]}]
""",
    "tied_with_untied": """
merge_method: linear
models:
- {model: tied_a, parameters: {weight: 0.5}}
- {model: a, parameters: {weight: 0.5}}
""",
    "tied_with_tied": """
merge_method: ties
base_model: tied_base
models:
- {model: tied_a, parameters: {weight: 0.5, density: 0.5}}
- {model: tied_b, parameters: {weight: 0.5, density: 0.5}}
dtype: bfloat16
""",
    "with_an_adapter": """
merge_method: linear
models:
- {model: a+lora_rs, parameters: {weight: 0.5}}
- {model: b, parameters: {weight: 0.5}}
""",
    "vision_bf16": """
merge_method: slerp
base_model: vl_base
models: [{model: vl_base}, {model: vl_a}]
parameters: {t: 0.4}
out_dtype: bfloat16
""",
    "llava": """
merge_method: linear
models:
- {model: llava_base, parameters: {weight: 0.3}}
- {model: llava_a, parameters: {weight: 0.7}}
""",
}


def configurations(only):
    cases = json.loads((FIXTURES / "cases.json").read_text())["cases"]
    for case in cases:
        folder = FIXTURES / "cases" / case["name"]
        if case["tool"] == "pytorch" or case.get("expected_error"):
            continue
        yield case["name"], (folder / "config.yaml").read_text(), case
    for name, text in MORE.items():
        yield name, text, {"name": name}


def stored(folder):
    """Every tensor of the files, by name."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "pt") as file:
            tensors.update({name: file.get_tensor(name) for name in file.keys()})
    return tensors


def check_model(out):
    config = json.loads((out / "config.json").read_text())
    cls = getattr(transformers, config["architectures"][0])
    model, info = cls.from_pretrained(out, output_loading_info=True, dtype="auto")
    problems = [f"{kind}: {sorted(map(str, keys))[:3]}" for kind, keys in info.items() if keys]
    file = stored(out)
    largest = {}
    for tensor in file.values():
        largest[tensor.dtype] = largest.get(tensor.dtype, 0) + tensor.numel()
    if model.dtype not in largest:
        problems.append(f"loads as {model.dtype}, stored as {sorted(map(str, largest))}")
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            problems.append(f"{name} is not finite")
        if name in file and not torch.equal(file[name].to(parameter.dtype), parameter.data):
            problems.append(f"{name} has other values than the file")
    ids = torch.tensor([[1, 5, 7, 6]])
    with torch.no_grad():
        if model.can_generate() and not config.get("is_encoder_decoder"):
            found = model.generate(ids, max_new_tokens=1, min_new_tokens=1, do_sample=False)
            if found.shape != (1, 5):
                problems.append(f"generated {tuple(found.shape)}")
        logits = model(input_ids=ids)[0]
    if not logits.isfinite().all():
        problems.append("the outputs are not finite")
    rows = model.get_input_embeddings().weight.shape[0]
    text_config = config.get("text_config", config)
    if text_config.get("vocab_size", rows) != rows:
        problems.append(f"vocab_size is {text_config['vocab_size']}, embeddings have {rows} rows")
    layers = text_config.get("num_hidden_layers")
    return problems, f"{cls.__name__}, {layers} layers, {rows} rows, {len(file)} tensors, {model.dtype}"


def again(folder, text):
    """What is left of a text after encoding and decoding, and its ids."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return tokenizer.decode(ids), ids, tokenizer


def check_tokenizer(out, rows, inputs, config):
    problems, notes = [], []
    for text in TEXTS:
        found, ids, tokenizer = again(out, text)
        if max(ids, default=0) >= rows or max(tokenizer.get_vocab().values()) >= rows:
            problems.append(f"ids beyond the {rows} rows")
        if found != text:
            known = any(again(path, text)[0] != text for path in inputs if (path / "tokenizer.json").exists())
            if not known:
                (notes if "union" in config else problems).append(f"{text!r} comes back as {found!r}")
    return problems, notes


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--merge", type=Path, default=ROOT / "target/debug/examples/merge")
    parser.add_argument("--only", nargs="*", default=[])
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    scratch = Path(tempfile.mkdtemp())
    models = FIXTURES / "models"
    counts = {"fine": 0, "refused": 0, "failed": 0}
    for name, text, case in configurations(arguments.only):
        if arguments.only and not any(name.startswith(start) for start in arguments.only):
            continue
        out, config = scratch / name, scratch / f"{name}.yaml"
        config.write_text(text)
        options = []
        if size := case.get("options", {}).get("out_shard_size"):
            options += ["--shard-size", str(size)]
        command = [arguments.merge.resolve(), config, out, *options, "--intermediate-dir", scratch / f"{name}.parts"]
        run = subprocess.run(command, cwd=models, capture_output=True, text=True)
        if run.returncode:
            counts["refused"] += 1
            print(f"{name}: refused: {run.stderr.strip().splitlines()[-1][:160]}", flush=True)
            assert not out.exists()
            continue
        try:
            problems, what = check_model(out)
            notes = []
            if (out / "tokenizer.json").exists():
                rows = int(what.split(" rows")[0].split()[-1])
                inputs = [path for path in models.iterdir() if path.name in text]
                more, notes = check_tokenizer(out, rows, inputs, text)
                problems += more
                what += ", tokenizer"
        except Exception as error:  # Whatever transformers says is a failure of this case.
            problems, what, notes = [f"{type(error).__name__}: {str(error)[:300]}"], "", []
        counts["failed" if problems else "fine"] += 1
        print(f"{name}: {'FAILED ' + '; '.join(problems) if problems else 'fine'} ({what})", flush=True)
        for note in notes:
            print(f"    {note}")
        shutil.rmtree(out)
    print(counts)
    shutil.rmtree(scratch)
    sys.exit(bool(counts["failed"]))


main()
