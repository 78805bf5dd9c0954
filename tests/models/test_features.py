"""Every feature on every family: measures, layers, neurons and edges against hooks on the plain model."""

from contextlib import ExitStack, contextmanager
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from decomp.api import load_table
from decomp.corpus.cutting import Window
from decomp.evaluation.agreement import agreements
from decomp.evaluation.alignment import alignment
from decomp.evaluation.curves import perturbation_curves, rank_sources
from decomp.locate.edges.graph import graph_of
from decomp.locate.edges.passes import EdgeMasks, UniformMask
from decomp.locate.edges.prompts import PromptPair
from decomp.locate.edges.request import EdgeRequest
from decomp.locate.edges.scoring import score_edges
from decomp.locate.facts import Fact, Object
from decomp.locate.layers.request import COMPONENTS, LayerRequest
from decomp.locate.layers.scoring import direct_shares, gradient_x_activation
from decomp.locate.neurons.completions import Completion, Continuation
from decomp.locate.neurons.request import NeuronRequest
from decomp.locate.neurons.scoring import integrated_gradients
from decomp.measures import SCORES, AttentionOptions, GradientOptions, OcclusionOptions, Request, Text
from decomp.measures.functions import FUNCTIONS
from decomp.models.sites import AttentionSite
from decomp.tables.blocks import rows_of
from decomp.tables.columns import COLUMNS, scores_block
from decomp.tables.table import Table
from tests.core.test_exactness import plain_blocks, starting_at
from tests.variants import FAMILIES, make_pair, random_ids

LENGTH = 7
IDS = random_ids(LENGTH)
FOILS = random_ids(LENGTH, seed=7)[1:]
EXACT = {"rtol": 0, "atol": 1e-10}
LINEAR = ("decomposed_logit", "alti_logit")
"""Measures of functions that are linear in the hidden states."""


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request):
    """The plain and the decomposed model of each family; nothing changes them."""
    plain, model = make_pair(request.param)
    for parameter in plain.parameters():
        parameter.requires_grad_(False)
    return plain, model


def scores_of(name, model, **options):
    (results,) = SCORES[name](model, [Text(IDS, range(LENGTH - 1), FOILS)], Request(**options))
    return results


def score_of(name, model, **options):
    (result,) = scores_of(name, model, **options)
    return result


def total(result):
    """What all rows of each target sum to, as the table has them."""
    return result.scores.sum(1) + sum(result.extra.values())


def twin(pair, module):
    """The plain model's module of the same name."""
    plain, model = pair
    (name,) = (name for name, other in model.named_modules() if other is module)
    return plain.get_submodule(name)


def attentions(model):
    return [site for site in model.branch_sites() if isinstance(site.body, AttentionSite)]


def softcapped(model):
    return getattr(model.config, "final_logit_softcapping", None) is not None


@contextmanager
def hooked(*hooks):
    """Hooks on modules as long as this is open, as (module, function, before it or after)."""
    with ExitStack() as stack:
        for module, hook, before in hooks:
            register = partial(module.register_forward_pre_hook, with_kwargs=True) if before else None
            handle = (register or module.register_forward_hook)(hook)
            stack.callback(handle.remove)
        yield


def first_of(output):
    return output[0] if isinstance(output, tuple) else output


def with_first(output, first):
    return (first, *output[1:]) if isinstance(output, tuple) else first


def logits_of(plain, ids=IDS):
    return plain(input_ids=ids[None]).logits[0]


def logits_from(pair, states):
    """The plain model's logits where its first block is given other states (texts, positions, hidden)."""
    first, *_ = plain_blocks(*pair)
    with starting_at(first, states):
        return pair[0](input_ids=IDS.expand(len(states), -1)).logits


def log2_probs(logits, tokens):
    return FUNCTIONS["log2_prob"](logits, tokens, None)


# Measures


@pytest.mark.parametrize("name", [name for name in SCORES if name not in LINEAR])
def test_every_measure_gives_numbers_to_what_came_before(pair, name):
    result = score_of(name, pair[1], gradients=GradientOptions(steps=2, neighbors=4))
    assert result.scores.shape == (LENGTH - 1, LENGTH)
    assert result.scores.isfinite().all()
    assert_close(result.scores, result.scores.tril(), rtol=0, atol=0)
    assert (result.scores.tril() != 0).sum() > LENGTH
    with torch.no_grad():
        assert_close(result.log2_prob, log2_probs(logits_of(pair[0])[:-1], IDS[1:]), **EXACT)


@pytest.mark.parametrize("name", LINEAR)
def test_rows_sum_to_the_logit(pair, name):
    plain, model = pair
    if softcapped(model):
        with pytest.raises(ValueError, match="soft"):
            score_of(name, model, extra=True)
        return
    with torch.no_grad():
        expected = FUNCTIONS["logit"](logits_of(plain)[:-1], IDS[1:], None)
    assert_close(total(score_of(name, model, extra=True)), expected, **EXACT)


@torch.no_grad()
def test_delta_lp_takes_contributions_away(pair):
    plain, model = pair
    scores, contributions = score_of("delta_lp", model).scores, model.decompose(IDS).dense()
    hidden = plain.base_model(input_ids=IDS[None]).last_hidden_state[0]
    head = plain.get_output_embeddings()
    capped = (lambda z: z) if not softcapped(model) else softcap(model.config.final_logit_softcapping)
    for i in range(LENGTH - 1):
        logits = capped(head(hidden[i] - contributions[i, : i + 1]))
        expected = log2_probs(capped(head(hidden[i])), IDS[i + 1]) - log2_probs(logits, IDS[i + 1].expand(i + 1))
        assert_close(scores[i, : i + 1], expected, **EXACT)


def softcap(bound):
    return lambda z: bound * torch.tanh(z / bound)


def given_state(pair):
    """What the plain model's first block is given."""
    kept = []
    first, *_ = plain_blocks(*pair)
    hook = lambda module, args, kwargs: kept.append((args[0] if args else kwargs["hidden_states"])[0])  # noqa: E731
    with torch.no_grad(), hooked((first, hook, True)):
        logits_of(pair[0])
    return kept[0]


def gradients_of_targets(pair, state):
    """∂ log2 p(next) / ∂ state of each target by autograd, each in a pass of its own: zero after the target."""
    x, targets = state.repeat(LENGTH - 1, 1, 1).requires_grad_(), torch.arange(LENGTH - 1)
    value = log2_probs(logits_from(pair, x)[targets, targets], IDS[1:]).sum()
    return torch.autograd.grad(value, x)[0]


def test_gradients_are_autograd_of_each_target(pair):
    """With respect to the state, and to token embeddings at the scale at which it holds them."""
    model = pair[1]
    state = given_state(pair)
    gradients = gradients_of_targets(pair, state)
    embeddings, project = model.token_embeddings()
    assert project is None
    for inputs, positions in ((embeddings[IDS], False), (state, True)):
        options = {"gradients": GradientOptions(positions=positions)}
        assert_close(score_of("gradient_norm", model, **options).scores, gradients.norm(dim=-1), **EXACT)
        expected = (gradients * inputs).sum(-1)
        assert_close(score_of("input_x_gradient", model, **options).scores, expected, **EXACT)


def test_what_is_added_to_token_embeddings_depends_on_the_position_alone(pair):
    model = pair[1]
    (embeddings, _), other = model.token_embeddings(), random_ids(LENGTH, seed=3)
    added = [model.record(ids).embedding - embeddings[ids] for ids in (IDS, other)]
    assert not torch.equal(IDS[1:], other[1:])
    assert_close(added[0], added[1], **EXACT)
    assert_close(model.record(IDS).embedding, given_state(pair), rtol=0, atol=0)
    assert model.adds_positions == (added[0].abs().max() > EXACT["atol"])


def without_embeddings(pair):
    """What the plain model's first block is given where every token has the mean embedding."""
    embeddings, _ = pair[1].token_embeddings()
    return given_state(pair) - embeddings[IDS] + embeddings.mean(0)


@pytest.mark.parametrize("name", ["integrated_gradients", "discretized_ig"])
def test_shares_sum_to_the_change_from_the_baseline(pair, name):
    plain, model = pair
    result = score_of(name, model, gradients=GradientOptions(steps=2, baseline="mean", neighbors=4))
    with torch.no_grad():
        baseline = log2_probs(logits_from(pair, without_embeddings(pair)[None])[0, :-1], IDS[1:])
        change = log2_probs(logits_of(plain)[:-1], IDS[1:]) - baseline
    assert_close(total(result), change, **EXACT)


def test_integrated_gradients_are_autograd_on_the_way(pair):
    options = GradientOptions(steps=2, baseline="mean", quadrature="midpoint")
    start = without_embeddings(pair)
    line = given_state(pair) - start
    gradients = [gradients_of_targets(pair, start + node * line) for node in (0.25, 0.75)]
    expected = (torch.stack(gradients).mean(0) * line).sum(-1)
    assert_close(score_of("integrated_gradients", pair[1], gradients=options).scores, expected, **EXACT)


def masked_logits(pair):
    """The plain model's logits where in the k-th text no later position sees k."""
    plain, model = pair

    def mask(module, args, kwargs):
        seen = kwargs["attention_mask"].expand(LENGTH - 1, -1, -1, -1).clone()
        for k, rows in enumerate(seen):
            rows[..., k + 1 :, k] = torch.finfo(seen.dtype).min
        return args, {**kwargs, "attention_mask": seen}

    with hooked(*((twin(pair, site.body.module), mask, True) for site in attentions(model))):
        return plain(input_ids=IDS.expand(LENGTH - 1, -1)).logits


@torch.no_grad()
def test_occlusion_is_a_masked_forward_pass(pair):
    plain, model = pair
    whole = log2_probs(logits_of(plain)[:-1], IDS[1:])
    expected = torch.zeros(LENGTH - 1, LENGTH, dtype=whole.dtype)
    for k, logits in enumerate(masked_logits(pair)):
        # Where the target itself is masked, the position before it predicts; an empty context knows nothing.
        logits[k] = logits[k - 1] if k else 0
        expected[k:, k] = (whole - log2_probs(logits[:-1], IDS[1:]))[k:]
    assert_close(score_of("occlusion", model).scores, expected, **EXACT)


@torch.no_grad()
def test_occlusion_by_another_token(pair):
    plain, model = pair
    whole = log2_probs(logits_of(plain)[:-1], IDS[1:])
    expected = torch.zeros(LENGTH - 1, LENGTH, dtype=whole.dtype)
    changed = IDS.repeat(LENGTH - 1, 1).fill_diagonal_(5)
    for k, logits in enumerate(plain(input_ids=changed).logits):
        expected[k:, k] = (whole - log2_probs(logits[:-1], IDS[1:]))[k:]
    assert_close(score_of("occlusion", model, occlusion=OcclusionOptions(5)).scores, expected, **EXACT)


def test_attention_weights_are_the_plain_model_s(pair):
    plain, model = pair
    with torch.no_grad():
        weights = [w[0, :, :-1] for w in plain(input_ids=IDS[None], output_attentions=True).attentions]
    results = scores_of("attention", model, attention=AttentionOptions("each", "each"))
    expected = [(f"attention[{layer}.{h}]", rows) for layer, w in enumerate(weights) for h, rows in enumerate(w)]
    for result, (name, rows) in zip(results, expected, strict=True):
        assert result.measure == name
        assert_close(result.scores, rows, **EXACT)


def test_rollout_of_the_plain_model_s_weights(pair):
    plain, model = pair
    with torch.no_grad():
        weights = [w[0].mean(0) for w in plain(input_ids=IDS[None], output_attentions=True).attentions]
    through = torch.eye(LENGTH, dtype=weights[0].dtype)
    for w in weights:
        through = (w + torch.eye(LENGTH)) / 2 @ through
    # Weights sum to 1, up to the rounding of transformers' own softmax in float64.
    assert_close(score_of("attention_rollout", model).scores, through[:-1], **EXACT)


@torch.no_grad()
def without_values(pair, layer):
    """What the plain model's attention gives before any norm after it, and its block: in the j-th text without the
    values of j, in the last with all."""
    plain, model = pair
    site, kept = attentions(model)[layer].body, {}

    def zero(module, args, output):
        output = output.clone()
        columns = torch.arange(output.shape[-1])[site.value.columns]
        for j, rows in enumerate(output.view(LENGTH + 1, LENGTH, -1)[:-1]):
            rows[j, columns] = 0
        return output

    def keep(name):
        return lambda module, args, output: kept.update({name: first_of(output).view(LENGTH + 1, LENGTH, -1).clone()})

    hooks = [(twin(pair, site.value.module), zero, False), (twin(pair, site.output), keep("attention"), False)]
    with hooked(*hooks, (plain_blocks(plain, model)[layer], keep("block"), False)):
        plain(input_ids=IDS.expand(LENGTH + 1, -1))
    return kept["attention"], kept["block"]


def test_norms_of_what_attention_carries(pair):
    """The change of the attention's output without the values of a position is what it carries from there."""
    model = pair[1]
    results = scores_of("attention_norm", model, attention=AttentionOptions("each"))
    for layer, result in enumerate(results):
        *without, whole = without_values(pair, layer)[0]
        carried = torch.stack([whole - one for one in without], 1).norm(dim=-1)
        assert_close(result.scores, carried[:-1], **EXACT)


def test_value_zeroing_turns_the_plain_model_s_blocks(pair):
    model, through = pair[1], torch.eye(LENGTH, dtype=torch.float64)
    results = scores_of("value_zeroing", model, attention=AttentionOptions("each"))
    for layer, result in enumerate(results):
        *without, whole = torch.nn.functional.normalize(without_values(pair, layer)[1], dim=-1)
        rows = torch.stack([(one - whole).square().sum(-1) for one in without], 1)
        rows = rows / rows.sum(1, keepdim=True)
        assert_close(result.scores, rows[:-1], **EXACT)
        through = rows @ through
    assert_close(score_of("value_zeroing_rollout", model).scores, through[:-1], **EXACT)


# Evaluation and tables


@torch.no_grad()
def test_what_a_prediction_loses_with_the_sources_ranked_first(pair):
    plain, model = pair
    (value, *_), ids, token = log2_probs(logits_of(plain)[-2:-1], IDS[-1:]), IDS[:-1], IDS[-1]
    ranking = rank_sources(score_of("delta_lp", model).scores[-1, :-1])
    curves = perturbation_curves(model, ids, token, {"delta_lp": ranking}, 5, FUNCTIONS["log2_prob"], 2**20)
    for metric, removed in (("comprehensiveness", ranking[:1]), ("sufficiency", ranking[1:])):
        changed = ids.clone()
        changed[removed] = 5
        lost = value - log2_probs(logits_of(plain, changed)[-1:], token[None])[0]
        assert_close(curves["delta_lp", metric][0], lost, **EXACT)


def test_measures_agree_and_find_evidence(pair):
    results = [score_of(name, pair[1]) for name in ("delta_lp", "occlusion")]
    for (first, second, _), value in agreements(results):
        assert (first, second) == (results[0].measure, results[1].measure)
        assert -1 <= value <= 1
    evidence = torch.arange(LENGTH - 1) == results[0].scores[-1, :-1].argmax()
    assert alignment(results[0].scores[-1, :-1].numpy(), evidence.numpy()).reciprocal_rank == 1


def test_a_table_of_scores_is_read_back(pair, tmp_path):
    result, names = score_of("delta_lp", pair[1]), [f"t{number}" for number in range(LENGTH)]
    block = scores_block(result, Window(0, 0, 0, LENGTH, 0, has_bos=False), names)
    Table.from_rows(COLUMNS, rows_of(block)).save(tmp_path / "table.tsv")
    read = load_table(tmp_path / "table.tsv")
    assert len(read) == LENGTH * (LENGTH - 1) / 2
    places = torch.tril_indices(LENGTH - 1, LENGTH).unbind()
    assert_close(torch.tensor(read["score"], dtype=torch.float64), result.scores[places], rtol=1e-6, atol=1e-12)


# Layers


FACT = Fact(IDS, ("t",) * LENGTH, ("further",) * LENGTH, Object((5,), ("a",)), Object((40,), ("b",)), True, "fact 0")


def contrast(logits):
    return logits[FACT.token] - logits[FACT.foil]


def component_of(pair, component, layer):
    """The plain model's modules whose outputs are the components'."""
    plain, model = pair
    if component == "residual":
        return plain_blocks(plain, model)[layer]
    return twin(pair, [s.last for s in model.branch_sites() if s.body.kind == component][layer])


@pytest.mark.parametrize("component", COMPONENTS)
def test_layers_are_gradients_at_hooks(pair, component):
    plain, model = pair
    (result,) = gradient_x_activation(model, [FACT], LayerRequest(components=(component,)))
    for layer, scores in enumerate(result.components[component]):
        kept = {}

        def leaf(module, args, output, kept=kept):
            kept["x"] = first_of(output).detach().clone().requires_grad_()
            return with_first(output, kept["x"])

        with hooked((component_of(pair, component, layer), leaf, False)):
            value = contrast(logits_of(plain)[-1])
        (gradient,) = torch.autograd.grad(value, kept["x"])
        assert_close(result.value, value.detach(), **EXACT)
        assert_close(scores, (gradient * kept["x"].detach()).sum(-1).view(-1), **EXACT)


def test_direct_shares_add_up(pair):
    plain, model = pair
    if softcapped(model):
        with pytest.raises(ValueError, match="soft"):
            direct_shares(model, FACT, "contrast_logit")
        return
    shares = direct_shares(model, FACT, "contrast_logit")
    with torch.no_grad():
        expected = contrast(logits_of(plain)[-1])
    parts = torch.cat([*shares.components.values(), torch.stack([shares.embedding, shares.bias])])
    assert_close(parts.sum(), expected, **EXACT)
    assert_close(shares.value, expected, **EXACT)


# Neurons


COMPLETION, PREDICTING = Completion(IDS[:5], IDS[5:]), slice(4, 6)


def with_neurons(pair, layer, change):
    """log2 P(completion) of the plain model with some of a layer's neurons changed."""

    def replace(module, args, kwargs):
        neurons = args[0].view(LENGTH - 1, -1)
        changed = torch.cat([neurons[: PREDICTING.start], change(neurons[PREDICTING])])
        return (changed.view(args[0].shape), *args[1:]), kwargs

    with hooked((twin(pair, pair[1].neuron_modules()[layer]), replace, True)):
        return log2_probs(logits_of(pair[0], IDS[:-1])[PREDICTING], IDS[5:]).sum()


def test_neurons_are_gradients_along_the_way_to_zero(pair):
    model = pair[1]
    if "neurons" in model.unsupported:
        with pytest.raises(ValueError, match=f"{model.config.model_type} models don't support neurons: "):
            model.neuron_modules()
        return
    result = integrated_gradients(model, COMPLETION, NeuronRequest(steps=2))
    for layer, scores in enumerate(result.scores):
        values, gradients = [], []
        for alpha in (0, 0.5, 1):
            kept = {}

            def scale(w, kept=kept, alpha=alpha):
                kept.update(w=w.detach(), x=(alpha * w.detach()).requires_grad_())
                return kept["x"]

            value = with_neurons(pair, layer, scale)
            gradients += torch.autograd.grad(value, kept["x"])
            values.append(value.detach())
        assert_close(scores, kept["w"] * torch.stack(gradients).mean(0), **EXACT)
        assert_close(result.without[layer], values[0], **EXACT)
        assert_close(result.value, values[-1], **EXACT)


def test_neurons_before_their_activation(pair):
    """Every activation here is 0 at 0: without what it is given, an MLP has no neurons."""
    if "neurons" in pair[1].unsupported:
        return
    requests = [NeuronRequest(steps=1, neurons=kind) for kind in ("activation", "pre-activation")]
    after, before = (integrated_gradients(pair[1], COMPLETION, request) for request in requests)
    assert_close(before.without, after.without, **EXACT)
    assert_close(before.value, after.value, **EXACT)
    assert (before.scores - after.scores).abs().max() > 1e-6


@torch.no_grad()
def test_completions_go_on_after_contexts_longer_than_windows(pair):
    ids = random_ids(30)
    if "neurons" in pair[1].unsupported:
        return
    logits = Continuation(pair[1], Completion(ids[:25], ids[25:])).logits(2, lambda layer, neurons: neurons)
    expected = logits_of(pair[0], ids[:-1])[24:]
    assert_close(logits, expected.expand(2, -1, -1), **EXACT)


# Edges


CORRUPT = random_ids(LENGTH, seed=9)
PROMPT = PromptPair(IDS, CORRUPT, torch.tensor([5]), torch.tensor([40]))


def edges_refused(model):
    """Norms after a sublayer mix its heads: there are no edges then."""
    if all(site.norm_out is None for site in model.branch_sites()):
        return False
    with pytest.raises(ValueError, match="edges are not defined for models with norms after a sublayer"):
        graph_of(model)
    return True


def norms_on_the_way(model):
    return any(stage.norm is not None for block in model.sites() for stage in block)


def attention_input(pair, site, kind, head, x):
    """The columns of one head's queries, keys or values, and what the plain model makes them of a stream x."""
    projection = (site.body.query, site.body.key, site.body.value)[kind]
    heads = (site.body.heads, site.body.kv_heads, site.body.kv_heads)[kind]
    module = twin(pair, projection.module)
    normed = x if site.norm_in is None else twin(pair, site.norm_in).forward(x)
    joint = module.forward(normed)
    columns = torch.arange(joint.shape[-1])[projection.columns].view(heads, -1)[head]
    return module, columns, joint[..., columns]


@torch.no_grad()
def with_stream_moved(pair, node, name, step):
    """The plain model's last logits where one head's queries, keys or values, one MLP, or the head reads another
    stream: the usual one and a step."""
    plain, model = pair
    if node == "logits":
        return with_final_moved(pair, step)
    layer, kind = int(node[1]), node[0]
    streams = {}
    site = next(
        branch
        for stage in model.sites()[layer]
        for branch in stage.branches
        if (branch.body.kind == "attention") == (kind == "a")
    )
    entry = twin(pair, site.norm_in)

    def keep(module, args, kwargs):
        streams["x"] = args[0].view(LENGTH, -1)

    if kind == "a":

        def replace(module, args, output):
            number, head = ("query", "key", "value").index(name), int(node.split(".h")[1])
            own, columns, changed = attention_input(pair, site, number, head, streams["x"] + step)
            assert own is module
            output = output.clone()
            output.view(LENGTH, -1)[:, columns] = changed
            return output

        projection = (site.body.query, site.body.key, site.body.value)[("query", "key", "value").index(name)]
        hooks = [(entry, keep, True), (twin(pair, projection.module), replace, False)]
    else:

        def replace(module, args, output):
            neurons = pair[1].get_submodule(name_of(model, site.norm_in)).forward(streams["x"] + step)
            return site.body(neurons).view(output.shape)

        hooks = [(entry, keep, True), (twin(pair, site.body.last), replace, False)]
    with hooked(*hooks):
        return logits_of(plain)[-1]


def name_of(model, module):
    return next(name for name, other in model.named_modules() if other is module)


def with_final_moved(pair, step):
    plain, model = pair

    def move(module, args, kwargs):
        return ((args[0] + step[None]), *args[1:]), kwargs

    with hooked((twin(pair, model.final_norm()), move, True)):
        return logits_of(plain)[-1]


@torch.no_grad()
def given_by(pair, source, ids):
    """What a source adds to the residual stream of the plain model."""
    plain, model = pair
    kept = {}
    if source == "embedding":
        module, before = plain_blocks(plain, model)[0], True
    else:
        layer, sites = int(source[1]), [s for s in model.branch_sites() if s.body.kind[0] == source[0]]
        body = sites[layer].body
        module, before = twin(pair, body.last), source[0] == "a"

    def keep(module, args, last):
        seen = (args[0] if args else last["hidden_states"]) if before else last
        kept["x"] = seen.view(len(ids), -1)

    with hooked((module, keep, before)):
        logits_of(plain, ids)
    if source[0] != "a":
        return kept["x"]
    head, weight = int(source.split(".h")[1]), module.weight if type(module).__name__ == "Conv1D" else module.weight.T
    part = slice(head * len(weight) // body.heads, (head + 1) * len(weight) // body.heads)
    return kept["x"][:, part] @ weight[part]


SOME_EDGES = [
    ("embedding", "a1.h1", "query"),
    ("a0.h2", "a1.h0", "key"),
    ("m0", "a1.h1", "value"),
    ("embedding", "m0", "input"),
    ("a0.h3", "m1", "input"),
    ("m1", "logits", "input"),
]


@torch.no_grad()
def test_an_edge_is_a_change_of_what_its_end_reads(pair):
    model = pair[1]
    if edges_refused(model):
        return
    graph = graph_of(model)
    assert not norms_on_the_way(model)
    corrupt, plain = UniformMask(graph), logits_of(pair[0])[-1]
    model.patched_logits(CORRUPT[None], corrupt)
    for source, *end in SOME_EDGES:
        place = graph.sources.index(source), graph.destinations.index(tuple(end))
        assert graph.edges()[place]
        masks = torch.zeros(graph.edges().shape, dtype=torch.float64)
        masks[place] = 1
        logits = model.patched_logits(IDS[None], EdgeMasks(graph, masks, corrupt.outputs))[0]
        step = given_by(pair, source, CORRUPT) - given_by(pair, source, IDS)
        assert_close(logits, with_stream_moved(pair, *end, step), **EXACT)
        assert (logits - plain).abs().max() > 1e-6


def test_attention_and_mlp_side_by_side_do_not_read_each_other(pair):
    model = pair[1]
    if edges_refused(model):
        return
    graph, parallel = graph_of(model), len(model.sites()[0][0].branches) == 2
    place = graph.sources.index("a1.h0"), graph.destinations.index(("m1", "input"))
    assert graph.edges()[place].item() != parallel


def test_edge_scores_are_slopes_of_the_masked_pass(pair):
    model = pair[1]
    if edges_refused(model):
        return
    result = score_edges(model, [PROMPT], EdgeRequest(mask_value=0.0))
    graph, step = result.graph, 1e-4
    corrupt = UniformMask(graph)
    with torch.no_grad():
        model.patched_logits(CORRUPT[None], corrupt)

    def loss(place, value):
        masks = torch.zeros(graph.edges().shape, dtype=torch.float64)
        masks[place] = value
        return -contrast(model.patched_logits(IDS[None], EdgeMasks(graph, masks, corrupt.outputs))[0])

    for source, *end in SOME_EDGES[::2]:
        place = graph.sources.index(source), graph.destinations.index(tuple(end))
        with torch.no_grad():
            slope = (loss(place, step) - loss(place, -step)) / (2 * step)
        assert_close(result.scores[place], slope, rtol=0, atol=1e-5 * result.scores.abs().max().item())
