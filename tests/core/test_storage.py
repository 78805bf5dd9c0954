"""What is stored comes back; what is broken or foreign is named."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch.testing import assert_close

import decomp
from decomp.core import storage
from decomp.core.storage import StoredRows, save_pt, unembedding_path, write_safetensors
from decomp.io.files import complete_or_absent
from tests.variants import make_pair, random_ids


@pytest.fixture
def result():
    _, decomposed = make_pair("opt", torch.float32)
    return decomposed.decompose(random_ids(15), decomposition_length=6)


@pytest.fixture
def stored(result, tmp_path):
    path = tmp_path / "text.safetensors"
    replace(result, tokens=("</s>", *("Ġ\t\n'\"é"[i % 6] for i in range(14)))).save(path)
    return path


def test_comes_back_whole(result, stored):
    loaded = decomp.load(stored)
    assert isinstance(loaded.rows, StoredRows)
    assert_close(loaded.dense(), result.dense(), rtol=0, atol=0)
    for name in ("input_ids", "bias", "hidden", "older"):
        assert_close(getattr(loaded, name), getattr(result, name), rtol=0, atol=0)
    assert loaded.completeness_gap() == result.completeness_gap()
    assert loaded.tokens[3] == "\n"
    assert loaded.about == result.about
    assert_close(loaded.delta_lp(), result.delta_lp(), rtol=0, atol=1e-5)


def test_a_soft_cap_and_a_head_bias_come_back(tmp_path):
    for variant in ("gemma2", "phi"):
        result = make_pair(variant, torch.float32)[1].decompose(random_ids(9))
        result.save(tmp_path / f"{variant}.safetensors")
        loaded = decomp.load(tmp_path / f"{variant}.safetensors")
        assert loaded.unembedding.softcap == result.unembedding.softcap
        assert_close(loaded.delta_lp(), result.delta_lp(), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("variant", "part"), [("gemma2", "a soft-cap of its logits"), ("phi", "a bias")])
def test_the_original_format_refuses_what_it_would_lose(variant, part, tmp_path):
    result = make_pair(variant, torch.float32)[1].decompose(random_ids(5))
    with pytest.raises(ValueError, match=rf"one matrix, this model's has {part}: use safetensors"):
        save_pt(result, tmp_path, "t", "m")
    assert not list(tmp_path.iterdir())


def test_has_no_empty_triangle(result, stored):
    with safe_open(stored, "pt") as file:
        assert file.get_slice("contributions").get_shape() == [6 * 15 - 15, 24]


def test_a_slice_reads_its_rows_only(result, stored, monkeypatch):
    loaded = decomp.load(stored)
    asked = []
    read = StoredRows.__getitem__
    monkeypatch.setattr(StoredRows, "__getitem__", lambda self, index: asked.append(index) or read(self, index))
    assert_close(loaded.contributions(7), result.contributions(7), rtol=0, atol=0)
    assert asked == [slice(27, 33)]


def test_same_content_same_bytes(result, tmp_path):
    for name in "ab":
        result.save(tmp_path / f"{name}.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_narrow_contributions(result, tmp_path):
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        path = tmp_path / f"{dtype}.safetensors"
        result.save(path, dtype=dtype)
        loaded = decomp.load(path)
        assert loaded.rows[0:1].dtype == dtype
        assert loaded.contributions(3).dtype == torch.float32
        assert_close(loaded.dense(), result.dense(), rtol=tolerance, atol=tolerance)


def test_too_large_for_float16(result, tmp_path):
    with pytest.raises(ValueError, match=r"too large for torch.float16: store them as bfloat16"):
        replace(result, rows=result.rows * 1e6).save(tmp_path / "a.safetensors", dtype=torch.float16)
    assert not (tmp_path / "a.safetensors").exists()


def test_pt_files_come_back(result, tmp_path):
    save_pt(result, tmp_path, "text_0", "m")
    d = torch.load(tmp_path / "d_text_0.pt", weights_only=True)
    assert d.shape == (6, 15, 24)
    for t in range(15):
        for r in range(min(6, t + 1)):
            assert_close(d[r, t], result.dense()[t, t - r], rtol=0, atol=0)
    loaded = decomp.load(tmp_path / "d_text_0.pt", tmp_path / "m_proj_weights.pt")
    assert_close(loaded.dense(), result.dense(), rtol=0, atol=0)
    assert_close(loaded.delta_lp(), result.delta_lp(), rtol=0, atol=1e-5)
    assert_close(decomp.load(tmp_path / "d_text_0.pt").dense(), result.dense(), rtol=0, atol=0)


def test_existing_file(result, stored):
    with pytest.raises(ValueError, match=r"text.safetensors exists: give --overwrite"):
        result.save(stored)
    before = stored.read_bytes()
    replace(result, bias=result.bias + 1).save(stored, overwrite=True)
    assert stored.read_bytes() != before


def test_missing_file(tmp_path):
    for name in ("a.safetensors", "d_a.pt"):
        with pytest.raises(ValueError, match=f"no such file: .*{name}"):
            decomp.load(tmp_path / name)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated(stored, share):
    whole = stored.read_bytes()
    stored.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ValueError, match=r"text.safetensors is truncated or no safetensors file"):
        decomp.load(stored)


def test_foreign(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match=r"a.safetensors holds no decomposition"):
        decomp.load(tmp_path / "a.safetensors")


def test_unembedding_is_no_decomposition(stored):
    with pytest.raises(ValueError, match="holds no decomposition"):
        decomp.load(unembedding_path(stored.parent, decomp.load(stored).about["model"]))


def test_future_version(stored, monkeypatch, result):
    monkeypatch.setattr(storage, "TOKENS_VERSION", 4)
    result.save(stored, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has format version 4, this package reads up to 3: upgrade"):
        decomp.load(stored)


def test_missing_tensor_and_wrong_shape(tmp_path):
    about = {"kind": "decomposition", "decomposition_length": 2, "tokens": None, "about": {}}
    path = tmp_path / "a.safetensors"
    tensors = {"input_ids": torch.arange(3), "contributions": torch.zeros(4, 2), "bias": torch.zeros(3, 2)}
    write_safetensors(path, tensors, about)
    with pytest.raises(ValueError, match=r"a.safetensors lacks hidden, remainder"):
        decomp.load(path)
    write_safetensors(path, {**tensors, "hidden": torch.zeros(3, 2), "remainder": torch.zeros(3, 2)}, about)
    with pytest.raises(ValueError, match="has 4 contributions, 3 tokens need 5"):
        decomp.load(path)


def test_unembedding_of_another_model(stored, result):
    beside = unembedding_path(stored.parent, result.about["model"])
    storage.save_unembedding(result.unembedding, beside, {**result.about, "weights": "feed"})
    with pytest.raises(ValueError, match=r"is of another model .*weights feed.*: decompose again"):
        decomp.load(stored)
    with pytest.raises(ValueError, match="into another folder"):
        result.save(stored.with_name("second.safetensors"))
    assert not stored.with_name("second.safetensors").exists()


def test_without_its_unembedding(stored, result):
    unembedding_path(stored.parent, result.about["model"]).unlink()
    loaded = decomp.load(stored)
    assert_close(loaded.dense(), result.dense(), rtol=0, atol=0)
    with pytest.raises(ValueError, match="has no unembedding"):
        loaded.delta_lp()


def test_broken_pt(result, tmp_path):
    save_pt(result, tmp_path, "t", "m")
    path = tmp_path / "d_t.pt"
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    with pytest.raises(ValueError, match=r"d_t.pt is truncated or no tensor file"):
        decomp.load(path)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match=r"d_t.pt holds no tensor"):
        decomp.load(path)
    torch.save(torch.zeros(3, 4, 5), path)
    with pytest.raises(ValueError, match="do not fit together"):
        decomp.load(path)
    with pytest.raises(ValueError, match=r"i_t.pt is no d_"):
        decomp.load(tmp_path / "i_t.pt")


@pytest.fixture
def rewritten(stored):
    """Writes the stored file again, consistent in itself, with other tensors or another header."""

    def rewritten(tensors=(), header=()):
        with safe_open(stored, "pt") as file:
            old = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = json.loads(file.metadata()["decomp"])
        about = {k: v for k, v in about.items() if k not in ("digest", "digests")}
        write_safetensors(stored, {**old, **dict(tensors)}, {**about, **dict(header)})

    return rewritten


def all_read(path):
    return decomp.load(path).dense()


@pytest.mark.parametrize("name", ["input_ids", "contributions", "bias", "hidden", "remainder"])
@pytest.mark.parametrize("place", [0, 0.5, 1])
def test_a_flipped_byte_is_named(stored, name, place):
    whole = bytearray(stored.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    first, stop = json.loads(whole[8:start])[name]["data_offsets"]
    whole[start + first + int(place * (stop - first - 1))] ^= 1
    stored.write_bytes(whole)
    with pytest.raises(ValueError, match=rf"text.safetensors is damaged: {name} has changed at rows 0 to"):
        all_read(stored)


def test_rows_are_checked_block_by_block(stored, monkeypatch, result):
    monkeypatch.setattr(storage, "BLOCK", 10)
    unembedding_path(stored.parent, result.about["model"]).unlink()
    result.save(stored, overwrite=True)
    whole = bytearray(stored.read_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    whole[start + json.loads(whole[8:start])["contributions"]["data_offsets"][0] + 4 * 24 * 30] ^= 1
    stored.write_bytes(whole)
    loaded = decomp.load(stored)
    assert_close(loaded.rows[0:30], result.rows[0:30], rtol=0, atol=0)
    with pytest.raises(ValueError, match="contributions has changed at rows 30 to 39"):
        loaded.rows[25:31]


@pytest.mark.parametrize(("old", "new"), [(b"opt", b"apt"), (b"tangent", b"tangenu"), (b"</s>", b"<\\s>")])
def test_a_flipped_byte_of_the_header_is_named(stored, old, new):
    stored.write_bytes(stored.read_bytes().replace(old, new[: len(old)], 1))
    with pytest.raises(ValueError, match=r"text.safetensors (is damaged|is truncated)"):
        decomp.load(stored)


@pytest.mark.parametrize(
    ("tensors", "header", "message"),
    [
        ({"hidden": torch.full((15, 24), torch.nan)}, {}, "hidden has numbers that are not finite"),
        ({"contributions": torch.full((75, 24), torch.inf)}, {}, "contributions has numbers that are not finite"),
        ({"bias": torch.zeros(15, 23)}, {}, r"bias must be 15 tokens × 24 numbers, not \(15, 23\)"),
        ({"remainder": torch.zeros(15, 24, dtype=torch.int32)}, {}, "remainder must be 15 tokens × 24 numbers"),
        ({"contributions": torch.zeros(75, 24, dtype=torch.int64)}, {}, "need 75 of floating-point numbers .*I64"),
        ({"input_ids": torch.zeros(15)}, {}, r"input_ids must be \(tokens,\) of int64, not \(15,\) of torch.float32"),
        ({"input_ids": torch.full((15,), 61)}, {}, "has token id 61, the vocabulary has 61"),
        ({"input_ids": torch.full((15,), -1)}, {}, "has token id -1"),
        ({}, {"version": None}, "does not say which version"),
        ({}, {"about": None}, "does not say which version"),
        ({}, {"decomposition_length": "6"}, "has the decomposition length '6'"),
        ({}, {"tokens": ["a"]}, "has 1 token strings for 15 tokens"),
    ],
)
def test_what_does_not_fit_is_named(rewritten, stored, tensors, header, message):
    rewritten(tensors, header)
    with pytest.raises(ValueError, match=message):
        all_read(stored)


def test_files_without_digests_are_read_with_a_line(stored, monkeypatch, result, caplog):
    about = {"version": 1, "kind": "decomposition", "decomposition_length": 6, "tokens": None, "about": {}}
    tensors = {"contributions": result.rows, "bias": result.bias, "hidden": result.hidden, "remainder": result.older}
    save_file({**tensors, "input_ids": result.input_ids}, stored, {"decomp": json.dumps(about)})
    assert_close(all_read(stored), result.dense(), rtol=0, atol=0)
    assert "text.safetensors has no digests (format version 1): damage to it would not show" in caplog.text


def test_nothing_that_is_not_finite_is_stored(result, tmp_path):
    with pytest.raises(ValueError, match="some contributions are not finite"):
        replace(result, rows=result.rows * torch.nan).save(tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_unembedding_is_named(stored, result):
    beside = unembedding_path(stored.parent, result.about["model"])
    whole = bytearray(beside.read_bytes())
    whole[-1] ^= 1
    beside.write_bytes(whole)
    with pytest.raises(ValueError, match=r"opt_unembedding.safetensors is damaged: weight has changed"):
        decomp.load(stored)


def test_pt_files_know_their_model(result, tmp_path, caplog):
    save_pt(result, tmp_path, "t_0", "m")
    loaded = decomp.load(tmp_path / "d_t_0.pt")
    assert loaded.about == {**result.about, "model": "m"}
    assert_close(loaded.delta_lp(), result.delta_lp(), rtol=0, atol=1e-5)
    _, other = make_pair("opt", torch.float32, seed=5)
    another = other.decompose(random_ids(15), decomposition_length=6)
    with pytest.raises(ValueError, match=r"m_proj_weights.pt is of another model \(opt, weights"):
        save_pt(another, tmp_path, "t_1", "m")
    manifest = tmp_path / "m_proj_weights.meta.json"
    manifest.unlink()
    with pytest.raises(ValueError, match=r"m_proj_weights.pt is of another model than opt"):
        save_pt(another, tmp_path, "t_1", "m")
    assert not caplog.records
    decomp.load(tmp_path / "d_t_0.pt")
    assert "has .pt files that do not say which model and window they are of" in caplog.text
    save_pt(result, tmp_path, "t_2", "m")
    assert manifest.exists()
    torch.save(another.unembedding.weight, tmp_path / "m_proj_weights.pt")
    with pytest.raises(ValueError, match=r"m_proj_weights.pt is damaged, or of another window or model"):
        decomp.load(tmp_path / "d_t_0.pt")


def test_pt_files_of_another_window_are_named(result, tmp_path, caplog):
    for name in ("t_0", "t_1"):
        save_pt(replace(result, rows=result.rows * (1 + int(name[-1]))), tmp_path, name, "m")
    (tmp_path / "d_t_1.pt").write_bytes((tmp_path / "d_t_0.pt").read_bytes())
    with pytest.raises(ValueError, match=r"d_t_1.pt is damaged, or of another window"):
        decomp.load(tmp_path / "d_t_1.pt")
    (tmp_path / "t_1.meta.json").unlink()
    decomp.load(tmp_path / "d_t_1.pt")
    assert "has .pt files that do not say which model and window they are of" in caplog.text


def test_pt_same_content_same_bytes(result, tmp_path):
    for name in "ab":
        save_pt(result, tmp_path, name, "m")
    assert (tmp_path / "d_a.pt").read_bytes() == (tmp_path / "d_b.pt").read_bytes()


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"kind": "decomposition"}', "[" * 10**5])
def test_damaged_manifest_of_pt_files(result, tmp_path, content):
    save_pt(result, tmp_path, "t", "m")
    (tmp_path / "t.meta.json").write_text(content)
    with pytest.raises(ValueError, match=r"t.meta.json (is damaged|holds no decomposition|does not say which version)"):
        decomp.load(tmp_path / "d_t.pt")


def test_complete_or_absent(tmp_path):
    def interrupted():
        with complete_or_absent(tmp_path / "a") as beside:
            beside.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_not_there(result, tmp_path):
    with pytest.raises(ValueError, match=r"can't write into .*nowhere"):
        result.save(tmp_path / "nowhere" / "a.safetensors")


def test_header_is_json(stored):
    with safe_open(stored, "pt") as file:
        about = json.loads(file.metadata()["decomp"])
    assert about["version"] == 2
    assert {"version", "model", "weights", "dtype", "activation_rule"} <= set(about["about"])


def test_target_outside_of_the_text(result):
    with pytest.raises(ValueError, match="target 15 is not in the text: its targets are 0 to 14"):
        result.contributions(15)
