"""Train the byte-level BPE tokenizer of this folder on the licence of the repository.

Run: pip install tokenizers==0.22.1 && python make_tokenizer.py
"""

from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).resolve().parent

tokenizer = Tokenizer(models.BPE())
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
trainer = trainers.BpeTrainer(
    vocab_size=1024,
    special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    show_progress=False,
)
text = (HERE / "../../../LICENSE-APACHE").read_text(encoding="utf-8")
tokenizer.train_from_iterator([" ".join(text.split())], trainer)
tokenizer.save(str(HERE / "tokenizer.json"), pretty=False)
