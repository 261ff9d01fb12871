"""Distillation against its formula in float64 from all logits, and what is refused."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import byte_tokenizer, tiny_llama, tiny_t5

from tunesmith.base.errors import UserError
from tunesmith.model.distill import Distillation, check_vocabulary, load_distillation
from tunesmith.model.losses import PackedRow, supervised_loss
from tunesmith.tokens.batches import make_batch
from tunesmith.tokens.encoded import Encoded

SHARED, STUDENT_ROWS, TEACHER_ROWS = 61, 64, 72  # the matrices are padded beyond the vocabulary, each in its own way


@pytest.fixture
def student():
    return tiny_llama(STUDENT_ROWS, tie_word_embeddings=True, initializer_range=0.3)


@pytest.fixture
def teacher():
    return tiny_llama(TEACHER_ROWS, seed=1, hidden_size=48, initializer_range=0.3).eval().requires_grad_(False)


def documents(seed=0):
    rng, drawn = np.random.default_rng(seed), []
    for length in (20, 3, 2, 31, 17):
        supervised = rng.random(length) < 0.4
        supervised[0], supervised[-1] = False, True
        drawn.append(Encoded(rng.integers(3, SHARED, length).astype(np.int32), supervised))
    return drawn


def row_of(drawn):
    return PackedRow.of(make_batch(drawn, range(len(drawn))), "cpu")


def dense(student, teacher, drawn, temperature, share):
    """The loss written out: probabilities of every token of every document, by the models' own forward passes."""
    total = torch.zeros((), dtype=torch.float64)
    for one in drawn:
        ids = torch.from_numpy(one.ids.astype(np.int64))[None]
        ours, theirs = (model(input_ids=ids).logits[0] for model in (student, teacher))
        for at in np.flatnonzero(one.supervised):
            p = torch.exp(theirs[at - 1, :SHARED] / temperature)
            q = torch.exp(ours[at - 1, :SHARED] / temperature)
            p, q = p / p.sum(), q / q.sum()
            soft = (p * (p / q).log()).sum()
            hard = -(ours[at - 1].exp()[ids[0, at]] / ours[at - 1].exp().sum()).log()
            total = total + share * temperature**2 * soft + (1 - share) * hard
    return total


def double(model):
    twin = copy.deepcopy(model).double()
    twin.set_attn_implementation("eager")
    return twin


def gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return {name: p.grad.double() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("chunk", [1, 7, 1000])
@pytest.mark.parametrize(("temperature", "share"), [(2.0, 0.5), (1.0, 1.0), (4.0, 0.9), (0.5, 0.2)])
def test_loss_and_gradient_are_those_of_the_formula(student, teacher, chunk, temperature, share):
    drawn, exact = documents(), double(student)
    loss = Distillation(teacher, temperature, share, SHARED)(student, row_of(drawn), chunk=chunk)
    expected = dense(exact, double(teacher), drawn, temperature, share)
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(expected.item(), rel=1e-5)
    ours, theirs = gradients(student, loss / 10), gradients(exact, expected / 10)
    assert ours.keys() == theirs.keys()
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).norm() <= 1e-5 * theirs[name].norm(), name
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_without_a_share_it_is_the_loss_on_the_data(student, teacher):
    row = row_of(documents())
    ours = gradients(student, Distillation(teacher, 1.0, 0.0, SHARED)(student, row))
    theirs = gradients(student, supervised_loss(student, row))
    torch.testing.assert_close(Distillation(teacher, 1.0, 0.0, SHARED)(student, row), supervised_loss(student, row))
    for name, gradient in ours.items():
        assert (gradient - theirs[name]).norm() <= 1e-5 * theirs[name].norm(), name  # sums in another order


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(student):
    twin = copy.deepcopy(student).eval()
    loss = Distillation(twin, 2.0, 1.0, SHARED)(student, row_of(documents()))
    assert abs(loss.item()) < 1e-4
    assert all(gradient.norm() < 1e-4 for gradient in gradients(student, loss).values())


def test_the_teacher_keeps_its_own_precision_under_autocast(student, teacher, monkeypatch):
    seen = []
    projection = teacher.get_output_embeddings()
    projection.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    row, objective = row_of(documents()), Distillation(teacher, 2.0, 0.5, SHARED)
    with torch.autocast("cpu", torch.bfloat16):
        objective(student, row)
    assert set(seen) == {torch.float32}
    teacher.to(torch.bfloat16)
    seen.clear()
    loss = objective(student, row)
    assert set(seen) == {torch.bfloat16} and loss.dtype == torch.float32


def test_logits_exist_for_a_chunk_of_supervised_positions_at_a_time(student, teacher):
    rows = []
    for model in (student, teacher):
        model.get_output_embeddings().register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    row = row_of(documents())
    Distillation(teacher, 2.0, 0.5, SHARED)(student, row, chunk=5)
    assert max(rows) <= 5 and sum(rows) == 2 * len(row.targets)


def test_a_row_without_supervised_tokens_has_no_loss(student, teacher):
    silent = Encoded(np.arange(5, dtype=np.int32), np.zeros(5, dtype=bool))
    assert Distillation(teacher, 2.0, 0.5, SHARED)(student, row_of([silent])).item() == 0


def test_encoder_decoders_teach_each_other():
    student, teacher = tiny_t5(SHARED), tiny_t5(SHARED, seed=1, d_model=48).requires_grad_(False)
    drawn = [Encoded.from_spans([5, 9, 11, 4, 7, 1], ((1, 2, 6),)), Encoded.from_spans([8, 3, 1], ((1, 1, 3),))]
    loss = Distillation(teacher, 2.0, 0.7, SHARED)(student, row_of(drawn))
    expected = 0.0
    for one in drawn:
        ((_, start, end),) = one.turns
        ids = torch.from_numpy(one.ids.astype(np.int64))[None]
        s, t = (model(input_ids=ids[:, :start], labels=ids[:, start:end]) for model in (student, teacher))
        p, q = (out.logits[0].div(2).softmax(-1) for out in (t, s))
        expected += 0.7 * 4 * (p * (p / q).log()).sum() + 0.3 * s.loss * (end - start)
    torch.testing.assert_close(loss, expected)


def saved(model, tokenizer, folder):
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def test_a_teacher_is_loaded_as_it_was_saved_and_may_have_padded_embeddings(tmp_path):
    tokenizer = byte_tokenizer()
    student = tiny_llama(len(tokenizer))
    name = saved(tiny_llama(len(tokenizer) + 30).to(torch.bfloat16), tokenizer, tmp_path)
    found = load_distillation(name, student, tokenizer, temperature=2.0, share=0.5)
    assert found.teacher.dtype == torch.bfloat16 and found.vocabulary == len(tokenizer)
    assert not any(parameter.requires_grad for parameter in found.teacher.parameters())
    assert (
        load_distillation(name, student, tokenizer, temperature=2.0, share=0.5, dtype="float32").teacher.dtype
        == torch.float32
    )


def test_another_vocabulary_is_refused_with_the_first_difference(tmp_path):
    tokenizer, other = byte_tokenizer(), byte_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["<|call|>"]})
    name = saved(tiny_llama(len(other)), other, tmp_path)
    with pytest.raises(UserError, match=r"token 258 is none in the base and '<\|call\|>' \(special\) in the teacher"):
        load_distillation(name, tiny_llama(258), tokenizer, temperature=2.0, share=0.5)


def vocabulary(*tokens, special=()):
    added = {id: SimpleNamespace(special=True) for id in special}
    return SimpleNamespace(get_vocab=lambda: {token: id for id, token in enumerate(tokens)}, added_tokens_decoder=added)


def test_tokens_that_changed_places_are_refused():
    check_vocabulary(vocabulary("a", "b", "c"), vocabulary("a", "b", "c"), "x")
    with pytest.raises(UserError, match="token 1 is 'b' in the base and 'c' in the teacher"):
        check_vocabulary(vocabulary("a", "b", "c"), vocabulary("a", "c", "b"), "x")
    with pytest.raises(UserError, match="token 2 is 'c' in the base and 'c' \\(special\\) in the teacher"):
        check_vocabulary(vocabulary("a", "b", "c"), vocabulary("a", "b", "c", special=[2]), "x")


def test_a_teacher_of_another_kind_is_refused(tmp_path):
    tokenizer = byte_tokenizer()
    name = saved(tiny_t5(len(tokenizer)), tokenizer, tmp_path)
    with pytest.raises(UserError, match=r"teacher .* is an encoder-decoder, and the base is a decoder"):
        load_distillation(name, tiny_llama(len(tokenizer)), tokenizer, temperature=2.0, share=0.5)


def test_a_teacher_that_lacks_embeddings_is_refused(tmp_path):
    tokenizer = byte_tokenizer()
    name = saved(tiny_llama(200), tokenizer, tmp_path)
    with pytest.raises(UserError, match="embeddings for 200 tokens, and the tokenizer writes 258"):
        load_distillation(name, tiny_llama(258), tokenizer, temperature=2.0, share=0.5)
