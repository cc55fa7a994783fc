"""A tuned model against its base: the harness's formulas, what only divergence sees, and what leaks."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from graft.dataset import Example
from graft.errors import ContextOverflow, ModelError, UsageError
from graft.evaluation.ability import AbilityQuestion, ability_tasks, general_prompts, general_texts, right
from graft.evaluation.likelihood import Likelihood, Prompted, TorchScorer
from graft.evaluation.memorising import FindPersonal, Planted, plant, probe_canaries, probe_leakage, secrets_in
from graft.evaluation.regression import Regression, divergence, regress
from graft.models import Message
from graft.training.checkpoint import checkpoint_from_gguf, open_checkpoint
from tests.model_fixtures import smollm2
from tests.training_fixtures import examples, small_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("base") / "small")


@pytest.fixture(scope="module")
def base(checkpoint: Path) -> TorchScorer:
    return TorchScorer(checkpoint)


def learnt_by_heart(checkpoint: Path, folder: Path, learnt: Sequence[Example]) -> Path:
    """All weights trained by plain torch until the examples are known word for word."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    rows = []
    for one in learnt:
        turns = [{"role": m.role, "content": m.content} for m in one.prompt]
        prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)
        rows.append((prompt, [*tokenizer.encode(one.answer, add_special_tokens=False), tokenizer.eos_token_id]))
    width = max(len(p) + len(a) for p, a in rows)
    ids = torch.tensor([[*p, *a, *[0] * (width - len(p) - len(a))] for p, a in rows])
    labels = torch.tensor([[*[-100] * len(p), *a, *[-100] * (width - len(p) - len(a))] for p, a in rows])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    loss = torch.tensor(1.0)
    for _ in range(100):
        if loss.item() < 0.005:
            break
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(checkpoint / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def learnt(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[TorchScorer, Planted]:
    """A model that has its 12 examples and 4 canaries by heart."""
    planted = plant(examples(12), 4, seed=3)
    folder = learnt_by_heart(checkpoint, tmp_path_factory.mktemp("tuned") / "model", planted.examples)
    return TorchScorer(folder), planted


@pytest.fixture(scope="module")
def adapted(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> TorchScorer:
    """The base under an adapter that peft made at random, so that it changes something."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", init_lora_weights=False)
    folder = tmp_path_factory.mktemp("tuned") / "adapter"
    get_peft_model(AutoModelForCausalLM.from_pretrained(checkpoint), config).save_pretrained(folder)
    return TorchScorer(checkpoint, folder)


def naive(scorer: TorchScorer, context: str, continuation: str) -> tuple[float, bool]:
    """lm-evaluation-harness's own way: the whole pair through the model, one at a time."""
    tokenizer, model = scorer._tokenizer, scorer._model
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    head = tokenizer.encode(context) if context else [tokenizer.bos_token_id]
    tail = tokenizer.encode(context + continuation)[len(head) if context else 0 :]
    with torch.inference_mode():
        logits = model(torch.tensor([[*head, *tail][:-1]])).logits[0, len(head) - 1 :]
    scores = torch.log_softmax(logits, -1)
    wanted = torch.tensor(tail)
    return scores.gather(1, wanted[:, None]).sum().item(), bool((scores.argmax(-1) == wanted).all())


def test_a_shared_prompt_scores_as_the_whole_pairs_do(base: TorchScorer) -> None:
    contexts = ["Which animal lives here?", "Another one!", "the fox ", "the wood", "", "Which animal lives there"]
    tails = (" the fox", " the bear lives in the wood", " a", " the owl and the hare\n\nand the deer")
    requests = [Prompted(context, tails[: 1 + i % 4]) for i, context in enumerate(contexts * 3)]
    requests.append(Prompted("many", tuple(f" the {i} wolves live in the wood" for i in range(80))))  # several passes
    told: list[int] = []
    checked = 0
    for request, found in zip(requests, base.likelihoods(requests, told.append), strict=True):
        for continuation, one in zip(request.continuations, found, strict=True):
            value, greedy = naive(base, str(request.context), continuation)
            assert one.log_probability == pytest.approx(value, abs=1e-4) and one.greedy == greedy
            checked += 1
    assert checked == sum(len(r.continuations) for r in requests) > 100 and told[-1] == len(requests)


def test_a_context_too_long_loses_its_beginning_and_a_continuation_too_long_is_refused(base: TorchScorer) -> None:
    long = "the wood " * 400
    (one,) = base.likelihoods([Prompted(long + "the", (" fox",))])[0]
    ids = base._tokenizer.encode(long + "the")
    tail = base._tokenizer.encode(long + "the fox")[len(ids) :]
    with torch.inference_mode():
        logits = base._model(torch.tensor([[*ids, *tail][-257:-1]])).logits[0, -len(tail) :]
    expected = torch.log_softmax(logits, -1).gather(1, torch.tensor(tail)[:, None]).sum().item()
    assert one.log_probability == pytest.approx(expected, abs=1e-4)
    with pytest.raises(ModelError, match="cannot be scored"):
        base.likelihoods([Prompted("x", ("the wood " * 400,))])
    with pytest.raises(ContextOverflow):
        base.continued([[1] * 250], 20)


def test_greedy_answers_in_a_batch_are_those_given_alone(learnt: tuple[TorchScorer, Planted]) -> None:
    tuned, _ = learnt
    prompts = [tuned.chat_tokens(e.prompt) for e in examples(12)]
    together = tuned.continued(prompts, 12)
    assert together == [tuned.continued([prompt], 12)[0] for prompt in prompts]
    assert [tuned.decode(answer) for answer in together] == [e.answer for e in examples(12)]
    logits = tuned.logits(prompts[0], together[0])
    assert logits.shape == (len(together[0]), tuned.vocabulary)
    assert (logits.argmax(-1) == np.array(together[0])).all()


def test_the_choice_rules_are_the_harness_s() -> None:
    question = AbilityQuestion("q", (), ("yes", "certainly so"), 1)
    found = [Likelihood(-3.0, 1, True), Likelihood(-6.0, 2, False)]
    assert right(question, found, "acc") == 0 and right(question, found, "acc_norm") == 1
    equal = [Likelihood(-3.0, 1, False), Likelihood(-3.0, 1, False)]
    assert right(AbilityQuestion("q", (), ("a", "b"), 0), equal, "acc") == 1  # the first of equals, as argmax
    assert right(AbilityQuestion("q", (), ("word",), 0), found[:1], "last_word") == 1


def test_prompts_are_those_of_the_harness(data: Path) -> None:
    tasks = {task.name: task for task in ability_tasks(data, limit=100_000)}
    assert set(tasks) >= {"general", "arc_easy", "arc_challenge", "boolq", "piqa", "winogrande", "commonsense_qa",
                          "openbook_qa", "lambada_openai", "mmlu"}  # fmt: skip
    arc = tasks["arc_easy"].questions[0].requests[0]
    assert str(arc.context).startswith("Question: Which statement best") and str(arc.context).endswith("?\nAnswer:")
    assert arc.continuations[0] == " Sunlight is the source of energy for nearly all ecosystems."
    boolq = str(tasks["boolq"].questions[0].requests[0].context)
    assert boolq.startswith("All biomass") and boolq.endswith("?\nAnswer:") and "\nQuestion: " in boolq
    gap = tasks["winogrande"].questions[0]
    assert [r.continuations for r in gap.requests] == [(" always got the easier cases.",)] * 2 and gap.gold == 1
    assert str(tasks["piqa"].questions[0].requests[0].context).endswith("occupants?\nAnswer:")
    mmlu = tasks["mmlu"].questions[0].requests[0]
    assert "\nA. " in str(mmlu.context) and mmlu.continuations == (" A", " B", " C", " D")
    assert tasks["lambada_openai"].questions[0].requests[0].continuations == (" signs",)
    assert sum(len(t.questions) for t in tasks.values()) > 25_000


def test_a_slice_is_the_same_for_the_same_seed_and_needs_no_data() -> None:
    (general,) = ability_tasks(None, limit=10)
    assert general == ability_tasks(None, limit=10)[0] != ability_tasks(None, limit=10, seed=1)[0]
    (whole,) = ability_tasks(None, limit=1000)
    assert len(whole.questions) >= 60 and len({q.requests[0].context for q in whole.questions}) == len(
        whole.questions
    )
    assert len(general_prompts()) == 40 and len(general_texts(None, limit=100)) == 20
    with pytest.raises(UsageError):
        ability_tasks(None, limit=0)


def test_a_damaged_data_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "ability").mkdir()
    (tmp_path / "ability" / "piqa.jsonl").write_text('{"query": "x", "choices": ["a"], "gold": 1}\n')
    with pytest.raises(UsageError, match="piqa, question 1 is damaged"):
        ability_tasks(tmp_path, limit=5)


def test_a_model_is_no_worse_than_itself(base: TorchScorer) -> None:
    stages: list[str] = []
    found = regress(base, base, limit=8, answer_tokens=2, progress=lambda p: stages.append(p.stage))
    assert {line.verdict for line in found.lines} == {"no loss seen"} and found.overall.comparison.differing == 0
    assert found.divergence.kl.mean == pytest.approx(0, abs=1e-9) and found.divergence.agreement.mean == 1
    assert "it speaks as its base does" in found.divergence.words and "general, tuned" in stages
    assert found.overall.words.endswith("points") and "unchanged" in found.overall.words


def test_a_model_of_another_vocabulary_is_not_its_base(base: TorchScorer) -> None:
    class Other:
        name, vocabulary = "other", 7

    with pytest.raises(UsageError, match="400 tokens and other 7"):
        regress(base, Other())  # type: ignore[arg-type]


def test_the_base_beneath_an_adapter_is_the_base(base: TorchScorer, adapted: TorchScorer) -> None:
    requests = [Prompted("the", (" fox", " owl lives"))]
    (original,), (beneath,), (above,) = (
        scorer.likelihoods(requests) for scorer in (base, adapted.without_adapter(), adapted)
    )
    assert [x.log_probability for x in beneath] == pytest.approx([x.log_probability for x in original], abs=1e-5)
    assert abs(above[0].log_probability - original[0].log_probability) > 0.1


def test_a_model_tuned_too_hard_is_seen_by_its_divergence(
    base: TorchScorer, learnt: tuple[TorchScorer, Planted]
) -> None:
    tuned, _ = learnt
    found = divergence(tuned, base, prompts=general_prompts(limit=8), answer_tokens=8)
    assert found.kl.mean > 0.5 and found.kl.low > 0 and found.agreement.mean < 0.85
    assert "clearly differently" in found.words and found.prompts == 8


def test_divergence_is_the_kl_of_the_two_distributions(
    base: TorchScorer, learnt: tuple[TorchScorer, Planted]
) -> None:
    tuned, _ = learnt
    found = divergence(tuned, base, prompts=["Which animal?"], answer_tokens=3)
    prompt = base.chat_tokens([Message("user", "Which animal?")])
    (answer,) = base.continued([prompt], 3)
    p, q = (torch.log_softmax(torch.tensor(s.logits(prompt, answer)).double(), -1) for s in (base, tuned))
    expected = torch.nn.functional.kl_div(q, p, log_target=True, reduction="none").sum(-1).mean().item()
    assert found.kl.mean == pytest.approx(expected, rel=1e-6)


def test_what_was_learnt_by_heart_is_exposed_and_what_was_not_is_not(
    base: TorchScorer, learnt: tuple[TorchScorer, Planted]
) -> None:
    tuned, planted = learnt
    mine = probe_canaries(tuned, planted.canaries, candidates=63)
    theirs = probe_canaries(base, planted.canaries, candidates=63)
    assert mine.most == 6 and mine.exposure.mean == 6 and mine.extracted.mean == 1
    assert theirs.exposure.mean < 3.5 and theirs.extracted.mean == 0 and theirs.extracted.high > 0.3
    never_planted = plant([], 12, seed=99).canaries
    assert probe_canaries(base, never_planted, candidates=31).exposure.low < 1.44 < 3.5


def test_canaries_are_new_each_time_unless_seeded_and_leave_the_examples_as_they_are() -> None:
    given = examples(6)
    one, two = plant(given, 3), plant(given, 3)
    assert one.canaries != two.canaries and plant(given, 3, seed=1) == plant(given, 3, seed=1)
    assert [e for e in one.examples if not e.id.startswith("canary-")] == given and len(one.examples) == 9
    with pytest.raises(UsageError):
        plant(given, 0)


def spans_of(*wanted: str) -> FindPersonal:
    return lambda text: [(text.index(w), text.index(w) + len(w)) for w in wanted if w in text]


def test_personal_data_that_the_model_writes_is_counted_beside_what_its_base_guesses(
    base: TorchScorer, learnt: tuple[TorchScorer, Planted]
) -> None:
    tuned, planted = learnt
    codes = [c.answer.split()[-1].rstrip(".") for c in planted.canaries]
    found = secrets_in(planted.examples, spans_of(*codes))
    assert len(found) == 4 and found[0].before == "The reference code is "
    leaked = probe_leakage(tuned, base, found)
    assert leaked.tuned is not None and leaked.base is not None
    assert leaked.tuned.mean == 1 and leaked.base.mean == 0 and len(leaked.leaked) == 4
    copied = Example(id="x", messages=(Message("user", "call 555 0100"), Message("assistant", "I call 555 0100")))
    assert secrets_in([copied], spans_of("555 0100")) == []
    assert probe_leakage(tuned, base, []).tuned is None


def test_an_adapter_that_does_not_fit_is_refused_with_the_fix(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no adapter_model\.safetensors"):
        TorchScorer(checkpoint, tmp_path)
    with pytest.raises(ModelError, match="config"):
        TorchScorer(tmp_path)


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint_from_gguf(smollm2(), tmp_path_factory.mktemp("checkpoints"))


@pytest.mark.slow
def test_the_real_model_knows_general_things_and_is_no_worse_than_itself(real: Path) -> None:
    base = TorchScorer(real)
    found: Regression = regress(base, base, limit=20, answer_tokens=2)
    general = {line.metric: line.comparison.b for line in found.lines}
    assert general["acc_norm"] >= 0.6  # 4 choices: 25% by chance
    assert 20 < math.exp(general["perplexity"]) < 90  # short texts without a beginning; chance is 49,152
    assert found.divergence.agreement.mean == 1


def test_an_activated_adapter_acts_on_the_whole_answer_and_on_nothing_without_a_prompt(
    checkpoint: Path, base: TorchScorer, tmp_path: Path
) -> None:
    from graft.training.lean.lora import Adapter
    from graft.training.lean.shape import read_shape

    shape = read_shape(open_checkpoint(checkpoint).config)
    adapter = Adapter(shape, rank=4, alpha=8.0, seed=0)
    adapter.vector.normal_(0, 0.2, generator=torch.Generator().manual_seed(1))
    invocation = base.encode("<|im_start|>assistant\n")
    adapter.save(tmp_path, base=str(checkpoint), extra={"alora_invocation_tokens": list(invocation)})
    tuned = TorchScorer(checkpoint, tmp_path)
    chats = [base.chat_tokens(e.prompt) for e in examples(4)]
    tails = ("the fox", "the owl lives in the wood", "the")
    moved = 0.0
    for scorer in (tuned, tuned.without_adapter()):
        found = scorer.likelihoods([Prompted(chat, tails) for chat in chats])
        for chat, row in zip(chats, found, strict=True):
            for tail, one in zip(tails, row, strict=True):
                ids = scorer.encode(tail)
                scores = torch.log_softmax(torch.tensor(scorer.logits(chat, ids)), -1)  # whole, by PEFT itself
                whole = scores.gather(1, torch.tensor(ids)[:, None]).sum().item()
                assert one.log_probability == pytest.approx(whole, abs=1e-4)
                moved += one.log_probability * (1 if scorer is tuned else -1)
    assert abs(moved) > 1
    plain = [Prompted("the wood", (" the fox lives here", " the owl"))]
    (with_it,), (without,) = tuned.likelihoods(plain), base.likelihoods(plain)
    for one, other in zip(with_it, without, strict=True):
        assert one.log_probability == pytest.approx(other.log_probability, abs=1e-5)
    together = tuned.continued(chats, 8)
    assert together == [tuned.continued([chat], 8)[0] for chat in chats] != base.continued(chats, 8)
    for chat, answer in zip(chats, together, strict=True):
        assert list(answer) == tuned.logits(chat, answer).argmax(-1).tolist()
