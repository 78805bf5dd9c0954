"""Seconds and memory of ΔLP of an answer by the segments of a long context, beside a plain forward pass."""

import multiprocessing

import click
import torch
from transformers import LlamaConfig

from bench.measure import processor_seconds, reset_peak, resident_bytes
from bench.sources import evenly
from decomp.io.amounts import format_bytes, parse_bytes
from decomp.measures import Request, Text, find_measure
from decomp.models.llama import DecomposedLlamaForCausalLM

SMOLLM2 = LlamaConfig(
    vocab_size=49152,
    hidden_size=576,
    intermediate_size=1536,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)
"""The shape of SmolLM2-135M."""


def measure(length: int, segments: int, answer: int, memory: int, threads: int) -> tuple[float, float, int]:
    """Return seconds of a plain forward pass, seconds of ΔLP by segments, and bytes of peak memory beyond the model."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = DecomposedLlamaForCausalLM(SMOLLM2).eval()
    ids = torch.randint(4, SMOLLM2.vocab_size, (length,))
    text = Text(ids, range(length - 1 - answer, length - 1), sources=evenly(length, segments))
    with torch.no_grad():
        plain = processor_seconds(lambda: model.base_model(ids[None]))
    before = reset_peak()
    scored = processor_seconds(lambda: list(find_measure("delta_lp")(model, [text], Request(memory=memory))))
    return plain, scored, resident_bytes("VmHWM") - before


@click.command()
@click.option("--length", default=8192, show_default=True, help="Tokens.")
@click.option("--segments", default=40, show_default=True)
@click.option("--answer", default=16, show_default=True, help="Tokens that are predicted.")
@click.option("--memory", default="8GiB", show_default=True)
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
def main(length: int, segments: int, answer: int, memory: str, threads: int) -> None:
    """Time ΔLP of an answer by the segments of its context, SmolLM2's shape with random weights."""
    # Peak memory is a process's own.
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        plain, scored, held = pool.apply(measure, (length, segments, answer, parse_bytes(memory), threads))
    click.echo(
        f"{length} tokens, {segments} segments, {answer} predicted, {threads} threads: forward pass {plain:.1f} s, "
        f"ΔLP {scored:.1f} s of processor time, {format_bytes(held)} beside the model under --memory {memory}"
    )


if __name__ == "__main__":
    main()
