"""Encoder-decoders: loss and gradient of a packed row against one pair at a time, and answers against `generate`."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import tiny_t5
from transformers import BartConfig, BartForConditionalGeneration

from tunesmith.base.errors import UserError
from tunesmith.model.adapters import load_adapter, merge, prepare_method
from tunesmith.model.generate import generate, new_tokens_limit, stream
from tunesmith.model.load import is_encoder_decoder, load_base
from tunesmith.model.losses import PackedRow, head_of, supervised_loss, token_losses
from tunesmith.model.noise import embedding_noise
from tunesmith.model.seq2seq import computes_exactly, start_token
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

VOCABULARY = 61


def bart():
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        dropout=0.0,
        init_std=0.2,
    )
    return BartForConditionalGeneration(config).eval()


def t5(**changes):
    return tiny_t5(VOCABULARY, **changes)


def untied():
    return t5(tie_word_embeddings=False, feed_forward_proj="gated-gelu")


BUILDS = [t5, untied, bart]


def sequences(seed=0, count=9):
    """Sequences of one to three turns, and one of which nothing is supervised."""
    rng = np.random.default_rng(seed)
    drawn = [Encoded.from_spans(rng.integers(3, VOCABULARY, 5).astype(np.int32), ())]
    for _ in range(count):
        spans, at = [], 0
        for turn in range(rng.integers(1, 4)):
            start = at + rng.integers(1, 12)
            at = start + rng.integers(1, 8)
            spans.append((turn, int(start), int(at)))
        drawn.append(Encoded.from_spans(rng.integers(3, VOCABULARY, at).astype(np.int32), tuple(spans)))
    return drawn


def row_of(drawn):
    return PackedRow.of(make_batch(drawn, range(len(drawn))), "cpu")


def plain(model, drawn):
    """The losses of all turns, each pair by the model's own forward pass with `labels` shifted by the model itself."""
    losses = []
    for one in drawn:
        ids = torch.from_numpy(one.ids.astype(np.int64))[None]
        for _, start, end in one.turns:
            logits = model(input_ids=ids[:, :start], labels=ids[:, start:end]).logits[0]
            losses.append(F.cross_entropy(logits, ids[0, start:end], reduction="none"))
    return torch.cat(losses)


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("chunk", [3, 1000])
def test_loss_and_gradient_of_a_packed_row_equal_those_of_pairs_alone(build, chunk):
    model, drawn = build(), sequences()
    row, expected = row_of(drawn), plain(model, drawn)
    loss = supervised_loss(model, row, chunk=chunk)
    torch.testing.assert_close(loss, expected.sum())
    torch.testing.assert_close(token_losses(model, row, chunk=chunk), expected.detach())
    ours, theirs = gradients(model, loss / 7), gradients(model, expected.sum() / 7)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        # A bias of keys moves all scores of a softmax alike: its gradient is zero but for rounding.
        rounding = 1e-6 if name.endswith("k_proj.bias") else 0
        assert (gradient - theirs[name]).norm() <= 1e-5 * theirs[name].norm() + rounding, name


def test_a_pair_is_not_touched_by_what_it_shares_its_row_with():
    model, drawn = t5(), sequences()
    changed = [*drawn[:-1], Encoded.from_spans(drawn[-1].ids + 1 - 60 * (drawn[-1].ids == 60), drawn[-1].turns)]
    others = sum(int(one.supervised.sum()) for one in drawn[:-1])
    before, after = (token_losses(model, row_of(some)) for some in (drawn, changed))
    assert torch.equal(before[:others], after[:others]) and not torch.equal(before, after)


def embedded(model, row):
    """What both parts embed for a row: (N, L, W) of each call."""
    found = []
    embeddings = {part.get_input_embeddings() for part in (model.get_encoder(), model.get_decoder())}
    handles = [one.register_forward_hook(lambda module, inputs, output: found.append(output)) for one in embeddings]
    supervised_loss(model, row)
    for handle in handles:
        handle.remove()
    return found


@pytest.mark.parametrize("build", [t5, bart])
def test_noise_on_embeddings_is_that_of_each_pairs_own_lengths(build):
    model, drawn, alpha = build().train(), sequences()[1:], 0.5
    plain_ones = embedded(model, row_of(drawn))
    with embedding_noise(model, alpha):
        noisy = embedded(model, row_of(drawn))
    pairs = zip(noisy, plain_ones, strict=True)
    largest = torch.cat([(one - other).abs().amax((1, 2)) for one, other in pairs])
    lengths = np.array([(start, end - start) for one in drawn for _, start, end in one.turns])
    bounds = torch.tensor(alpha / np.sqrt(lengths.ravel() * 32)).sort().values
    assert ((largest.sort().values <= 1.0001 * bounds) & (largest.sort().values >= 0.8 * bounds)).all()


def test_a_row_without_supervised_tokens_has_no_loss():
    model = prepare_method(t5(), "lora", rank=2)
    loss = supervised_loss(model, row_of(sequences()[:1]))
    assert loss.item() == 0
    loss.backward()


@pytest.mark.parametrize("build", [t5, bart])
def test_activations_computed_twice_change_nothing(build):
    model, row = build().train(), row_of(sequences())
    expected = gradients(model, supervised_loss(model, row))
    model.activation_checkpointing_enable()
    found = gradients(model, supervised_loss(model, row))
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name])


@pytest.mark.parametrize("build", BUILDS)
def test_what_the_model_does_itself_is_computed_and_anything_else_is_found_out(build):
    model = build()
    head = head_of(model)
    assert computes_exactly(model, head)
    assert not computes_exactly(model, lambda hidden: 1.1 * head(hidden))


def test_a_bias_that_only_the_model_adds_is_found_out():
    model = bart()
    model.final_logits_bias[0, 7] = 3.0
    assert not computes_exactly(model, head_of(model))


def talkative(model):
    """The model with weights so large that its greedy answers differ and vary."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(15.0 if parameter.dim() == 2 else 1.0)
    return model


def prompts(seed=1):
    rng = np.random.default_rng(seed)
    return [rng.integers(3, VOCABULARY, length).tolist() for length in (5, 17, 1, 9, 30, 2, 8)]


@pytest.mark.parametrize("build", BUILDS)
def test_greedy_answers_are_those_of_transformers(build):
    model, asked, stop = talkative(build()), prompts(), set(range(1, VOCABULARY, 6))
    expected = []
    for prompt in asked:
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            do_sample=False,
            num_beams=1,
            max_new_tokens=12,
            min_new_tokens=0,
            eos_token_id=sorted(stop),
            forced_eos_token_id=None,
            forced_bos_token_id=None,
            pad_token_id=0,
        )[0, 1:].tolist()
        expected.append([token for token in out if token not in stop])
    assert generate(model, asked, stop=stop, max_new_tokens=12, batch_rows=4) == expected
    assert len({len(answer) for answer in expected}) > 1  # rows leave their batch at different steps
    assert [list(stream(model, prompt, stop=stop, max_new_tokens=12)) for prompt in asked] == expected


def test_draws_do_not_depend_on_the_batches():
    model = t5()
    one, other = (
        generate(model, prompts(), stop={1}, max_new_tokens=8, temperature=1.0, seed=3, batch_rows=rows)
        for rows in (1, 64)
    )
    assert one == other


def test_the_prompt_takes_no_room_from_the_answer():
    assert new_tokens_limit(bart(), 60, 100) == 64 and new_tokens_limit(t5(), 10_000, 100) == 100


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def tokenizer():
    from tiny import byte_tokenizer

    return byte_tokenizer()


def test_a_directory_loads_with_the_saved_weights_and_the_decoders_start(tokenizer, tmp_path):
    model = tiny_t5(len(tokenizer), decoder_start_token_id=3)
    folder = saved(model, tokenizer, tmp_path)
    loaded = load_base(folder)
    assert is_encoder_decoder(folder) and not is_encoder_decoder("pocket")
    assert start_token(loaded.model) == 3 and not loaded.model.training
    assert loaded.model.generation_config.decoder_start_token_id == 3
    weights = dict(model.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in loaded.model.named_parameters())
    assert load_base(folder, dtype="bfloat16").model.lm_head.weight.dtype == torch.bfloat16


def test_a_base_that_does_not_say_what_its_decoder_starts_from_is_refused(tokenizer, tmp_path):
    model = tiny_t5(len(tokenizer))
    del model.config.decoder_start_token_id
    model.generation_config.decoder_start_token_id = None
    with pytest.raises(UserError, match="decoder_start_token_id"):
        load_base(saved(model, tokenizer, tmp_path))


def test_lora_trains_saves_loads_and_merges(tokenizer, tmp_path):
    model = tiny_t5(len(tokenizer))
    base = copy.deepcopy(model)
    adapted = prepare_method(model, "lora", rank=4)
    assert adapted.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    drawn = sequences()
    row = row_of(drawn)
    torch.testing.assert_close(supervised_loss(adapted, row), supervised_loss(base, row))
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    loss = supervised_loss(adapted, row)
    loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    torch.testing.assert_close(loss.detach(), plain(adapted, drawn).sum().detach())
    adapted.save_pretrained(tmp_path, save_embedding_layers=False)
    again = load_adapter(base, tmp_path)
    torch.testing.assert_close(supervised_loss(again, row), loss)
    torch.testing.assert_close(supervised_loss(merge(adapted), row), loss)
