"""Peak memory, beyond the weights, of decomposing a text under a Llama with a billion parameters in bfloat16.

The weights are random: 16 layers, 2,048 wide, 8,192 neurons, 32 heads over 8, a vocabulary of 128,256.
"""

import click
import torch
from transformers import LlamaConfig
from transformers.initialization import no_init_weights

from bench.measure import reset_peak, resident_bytes, seconds
from decomp.core.rules import GATE_RULES, GateRule
from decomp.io.amounts import format_bytes, parse_bytes
from decomp.models.llama import DecomposedLlamaForCausalLM

CONFIG = LlamaConfig(
    vocab_size=128_256,
    hidden_size=2048,
    intermediate_size=8192,
    num_hidden_layers=16,
    num_attention_heads=32,
    num_key_value_heads=8,
    max_position_embeddings=8192,
    tie_word_embeddings=True,
)


def make_large() -> DecomposedLlamaForCausalLM:
    """Return the model, its matrices drawn at the scale of their width."""
    torch.set_default_dtype(torch.bfloat16)
    with no_init_weights():
        model = DecomposedLlamaForCausalLM(CONFIG)
    torch.set_default_dtype(torch.float32)
    for parameter in model.parameters():
        bound = (3 / parameter.shape[-1]) ** 0.5
        parameter.data.fill_(1) if parameter.ndim == 1 else parameter.data.uniform_(-bound, bound)
    model.tie_weights()
    return model.eval()


@click.command()
@click.option("--length", type=int, default=32, show_default=True, help="Tokens of the text.")
@click.option("--threads", type=int, default=torch.get_num_threads(), show_default=True)
@click.option("--memory", default="2GiB", show_default=True, help="Of the engine.")
@click.option("--gate-rule", "rule", type=click.Choice(GATE_RULES), default="half", show_default=True)
def main(length: int, threads: int, memory: str, rule: GateRule) -> None:
    """Decompose one text and score it; print the seconds and the peak memory beyond the weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = make_large()
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    ids = torch.randint(4, CONFIG.vocab_size, (length,))
    before = reset_peak()
    gaps: list[float] = []

    def work() -> None:
        result = model.decompose(ids, gate_rule=rule, memory=parse_bytes(memory))
        gaps.append(result.completeness_gap() / result.hidden.abs().max().item())
        result.delta_lp()

    time = seconds(work)
    held = resident_bytes("VmHWM") - before
    click.echo(
        f"{format_bytes(weights)} of weights, T {length}, gate rule {rule}, --memory {memory}: {time:.1f} s, "
        f"{format_bytes(held)} beside them, gap {gaps[0]:.1e} of the largest hidden state"
    )


if __name__ == "__main__":
    main()
