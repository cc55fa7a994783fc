"""What every `Model` must keep to, as tests: subclass `ModelContract` and give a `model` fixture.

    class TestMyModel(ModelContract):
        @pytest.fixture
        def model(self):
            return MyModel(...)

It does not judge how good an answer is.
"""

from __future__ import annotations

import dataclasses
import itertools
import json

from graft.errors import ContextOverflow
from graft.models.protocol import GenerateOptions, Message, Model, Reply, complete

STORY = (Message("user", "Tell me a long story about a fox and a river."),)
SHORT = GenerateOptions(max_tokens=12)


class ModelContract:
    """The contract; a method each."""

    def test_pieces_join_to_the_text_of_the_reply(self, model: Model) -> None:
        stream = model.stream(STORY, SHORT)
        pieces = []
        while True:
            try:
                pieces.append(next(stream))
            except StopIteration as end:
                reply: Reply = end.value
                break
        assert len(pieces) > 1 and all(pieces)
        assert "".join(pieces) == reply.text

    def test_usage_is_what_was_counted_and_generated(self, model: Model) -> None:
        reply = complete(model, STORY, SHORT)
        assert reply.usage.input_tokens > 0
        assert 1 <= reply.usage.output_tokens <= SHORT.max_tokens
        assert 0 < model.count_tokens(STORY) <= 4 * reply.usage.input_tokens

    def test_more_text_counts_more_tokens(self, model: Model) -> None:
        assert model.count_tokens(STORY) > model.count_tokens((Message("user", "Hi"),))

    def test_max_tokens_ends_the_reply_by_length(self, model: Model) -> None:
        reply = complete(model, STORY, GenerateOptions(max_tokens=5))
        assert reply.finish_reason == "length"
        assert reply.usage.output_tokens <= 5

    def test_a_stop_text_ends_the_reply_and_is_not_in_it(self, model: Model) -> None:
        free = complete(model, STORY, dataclasses.replace(SHORT, max_tokens=24)).text
        stop = free.split()[3]
        reply = complete(model, STORY, dataclasses.replace(SHORT, max_tokens=24, stop=(stop,)))
        assert stop not in reply.text
        assert reply.finish_reason == "stop"
        assert free.startswith(reply.text.rstrip())

    def test_the_same_question_at_temperature_zero_has_the_same_reply(self, model: Model) -> None:
        options = dataclasses.replace(SHORT, cache_prompt=False)
        assert complete(model, STORY, options).text == complete(model, STORY, options).text

    def test_times_are_measured_in_order(self, model: Model) -> None:
        reply = complete(model, STORY, SHORT)
        assert 0 < reply.first_token_ms <= reply.total_ms

    def test_a_prompt_that_does_not_fit_is_refused_before_a_token(self, model: Model) -> None:
        flood = (Message("user", "river " * (2 * model.context_tokens)),)
        try:
            next(model.stream(flood, SHORT))
        except ContextOverflow as error:
            assert f"{model.context_tokens:,}" in error.message and error.fix
        else:
            raise AssertionError("a prompt over the context was answered")

    def test_a_reply_that_would_not_fit_is_refused_too(self, model: Model) -> None:
        try:
            next(model.stream(STORY, GenerateOptions(max_tokens=model.context_tokens)))
        except ContextOverflow as error:
            assert error.fix
        else:
            raise AssertionError("prompt and reply together over the context were accepted")

    def test_closing_early_stops_and_the_next_request_works(self, model: Model) -> None:
        stream = model.stream(STORY, GenerateOptions(max_tokens=200))
        assert len(list(itertools.islice(stream, 3))) == 3
        stream.close()
        assert complete(model, STORY, GenerateOptions(max_tokens=3)).text

    def test_no_piece_breaks_a_character(self, model: Model) -> None:
        asked = (Message("user", "Repeat exactly: 你好，世界 🌍🎉 Größe Ёлка नमस्ते 你好 🌍"),)
        reply = complete(model, asked, GenerateOptions(max_tokens=40))
        assert "\ufffd" not in reply.text
        reply.text.encode("utf-8")

    def test_a_json_schema_is_kept_to(self, model: Model) -> None:
        schema = {
            "type": "object",
            "properties": {"animal": {"type": "string", "maxLength": 12}, "legs": {"enum": [2, 4, 6]}},
            "required": ["animal", "legs"],
            "additionalProperties": False,
        }
        asked = (Message("user", "Name an animal and how many legs it has, as JSON."),)
        reply = complete(model, asked, GenerateOptions(max_tokens=60, json_schema=schema))
        answer = json.loads(reply.text)
        assert set(answer) == {"animal", "legs"} and answer["legs"] in (2, 4, 6)
