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
from decomp.core.storage import StoredRows, load_pt, save_pt, unembedding_path, write_safetensors
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
    loaded = load_pt(tmp_path / "d_text_0.pt", tmp_path / "m_proj_weights.pt")
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
    monkeypatch.setattr(storage, "FORMAT_VERSION", 2)
    result.save(stored, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"has format version 2, this package reads up to 1: upgrade"):
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
    assert about["version"] == 1
    assert {"version", "model", "weights", "dtype", "activation_rule"} <= set(about["about"])


def test_target_outside_of_the_text(result):
    with pytest.raises(ValueError, match="target 15 is not in the text: its targets are 0 to 14"):
        result.contributions(15)
