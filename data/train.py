"""Train a demo model: `python data/train.py demo-opt --corpus FOLDER` (or `demo-gpt2`).

FOLDER holds one plain-text book a file, one paragraph a line. Two books are held out; the demo
passages come from them. Prints the held-out bits per token of the model and of a bigram model with
the same tokenizer. Same seed, machine and number of threads: same weights.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

HELD_OUT = ("alice-s-adventures-in-wonderland", "the-time-machine")
VOCAB, HIDDEN, HEADS, LAYERS, CONTEXT = 4096, 192, 6, 6, 512


def read_books(corpus: Path) -> tuple[list[str], list[str]]:
    """The training and the held-out books, paragraphs joined with one space as in an article."""
    books = {path.stem: " ".join(path.read_text("utf-8").split()) for path in sorted(corpus.glob("*.txt"))}
    held_out = [books.pop(name) for name in HELD_OUT]
    return list(books.values()), held_out


def train_tokenizer(books: list[str], family: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE with the special tokens of the family: OPT's `</s>` at 2, GPT-2's `<|endoftext|>`."""
    opt = family == "demo-opt"
    specials = ["<s>", "<pad>", "</s>", "<unk>"] if opt else ["<|endoftext|>"]
    bos = "</s>" if opt else "<|endoftext|>"
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(books, trainer)
    if opt:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=bos,
        eos_token=bos,
        unk_token="<unk>" if opt else bos,
        pad_token="<pad>" if opt else None,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model(tokenizer: PreTrainedTokenizerFast, family: str) -> PreTrainedModel:
    special = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    if family == "demo-gpt2":
        return GPT2LMHeadModel(
            GPT2Config(
                vocab_size=VOCAB,
                n_positions=CONTEXT,
                n_embd=HIDDEN,
                n_layer=LAYERS,
                n_head=HEADS,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                **special,
            )
        )
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=VOCAB,
            max_position_embeddings=CONTEXT,
            hidden_size=HIDDEN,
            word_embed_proj_dim=HIDDEN,
            ffn_dim=4 * HIDDEN,
            num_hidden_layers=LAYERS,
            num_attention_heads=HEADS,
            dropout=0.0,
            pad_token_id=tokenizer.pad_token_id,
            **special,
        )
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, books: list[str]) -> torch.Tensor:
    encodings = tokenizer(books, add_special_tokens=False, verbose=False)["input_ids"]
    return torch.tensor([token for book in encodings for token in book])


def windows(ids: torch.Tensor, starts: torch.Tensor, bos: int) -> torch.Tensor:
    """(batch, CONTEXT) windows, each after the beginning-of-sequence token."""
    rows = ids[starts[:, None] + torch.arange(CONTEXT - 1)]
    return torch.cat([rows.new_full((len(starts), 1), bos), rows], dim=1)


def train(model: PreTrainedModel, ids: torch.Tensor, bos: int, tokens: int, batch: int, peak: float) -> None:
    """Muon for the matrices of the blocks, AdamW for the rest, warm-up and cosine decay, bfloat16 autocast."""
    steps, warmup = tokens // (batch * CONTEXT), 100
    embeddings = ("embed", "wte", "wpe")
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and not any(e in n for e in embeddings)]
    chosen = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in chosen]
    optimizers = [
        torch.optim.Muon(matrices, lr=peak, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=peak, betas=(0.9, 0.98), weight_decay=0.0),
    ]

    def rate(step: int) -> float:
        return min((step + 1) / warmup, 0.02 + 0.49 * (1 + math.cos(math.pi * step / steps)))

    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, rate) for optimizer in optimizers]
    model.train()
    begin = time.time()
    for step in range(steps):
        starts = torch.randint(len(ids) - CONTEXT, (batch,))
        rows = windows(ids, starts, bos)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=rows, labels=rows).loss
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            schedule.step()
        if step % 50 == 0 or step == steps - 1:
            seconds = time.time() - begin
            print(f"step {step}/{steps} bits {loss.item() / math.log(2):.3f} {seconds:.0f} s", flush=True)


@torch.no_grad()
def model_bits(model: PreTrainedModel, ids: torch.Tensor, bos: int) -> float:
    """Held-out bits per token, windows side by side (each token predicted once)."""
    model.eval()
    starts = torch.arange(0, len(ids) - CONTEXT, CONTEXT - 1)
    losses = [model(input_ids=rows, labels=rows).loss.item() for rows in windows(ids, starts, bos).split(8)]
    return float(np.mean(losses)) / math.log(2)


def bigram_bits(train_ids: np.ndarray, test_ids: np.ndarray, discount: float = 0.75) -> float:
    """Held-out bits per token of a bigram model with interpolated Kneser-Ney smoothing."""
    pairs, counts = np.unique(train_ids[:-1] * VOCAB + train_ids[1:], return_counts=True)
    first, second = pairs // VOCAB, pairs % VOCAB
    continuation = (np.bincount(second, minlength=VOCAB) + 0.5) / (len(pairs) + 0.5 * VOCAB)
    context = np.bincount(train_ids[:-1], minlength=VOCAB)
    types = np.bincount(first, minlength=VOCAB)
    keys = test_ids[:-1] * VOCAB + test_ids[1:]
    index = np.searchsorted(pairs, keys).clip(max=len(pairs) - 1)
    seen = np.where(pairs[index] == keys, counts[index] - discount, 0.0)
    history, word = test_ids[:-1], test_ids[1:]
    total = np.maximum(context[history], 1)
    rest = np.where(context[history] > 0, discount * types[history] / total, 1.0)
    return float(-np.log2(seen / total + rest * continuation[word]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=["demo-opt", "demo-gpt2"])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    books, held_out = read_books(options.corpus)
    tokenizer = train_tokenizer(books, options.family)
    model = make_model(tokenizer, options.family)
    ids, test_ids = token_ids(tokenizer, books), token_ids(tokenizer, held_out)
    bos = tokenizer.bos_token_id
    print(f"{len(ids)} training tokens, {len(test_ids)} held out, {model.num_parameters()} parameters", flush=True)
    train(model, ids, bos, options.tokens, options.batch_size, options.learning_rate)
    model.to(torch.float16).save_pretrained(options.output / options.family)
    tokenizer.save_pretrained(options.output / options.family)
    print(f"bigram: {bigram_bits(ids.numpy(), test_ids.numpy()):.3f} bits per token held out")
    print(f"{options.family}: {model_bits(model.float(), test_ids, bos):.3f} bits per token held out")


if __name__ == "__main__":
    main()
