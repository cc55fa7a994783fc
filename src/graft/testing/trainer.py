"""What every `Trainer` must keep to, as tests: subclass `TrainerContract`, give fixtures `trainer` and `run`.

    class TestMine(TrainerContract):
        @pytest.fixture
        def trainer(self): return MyTrainer()

        @pytest.fixture
        def run(self, tmp_path): return TrainRun(...)   # of at least two steps, with a dev part

It does not judge how fast a trainer is.
"""

from __future__ import annotations

import json
import math

from graft.errors import TrainingError
from graft.training.protocol import Trainer, TrainProgress, TrainRun
from graft.training.states import RUN


class TrainerContract:
    """The contract; a method each."""

    def test_a_run_ends_with_what_it_promises(self, trainer: Trainer, run: TrainRun) -> None:
        seen: list[TrainProgress] = []
        result = trainer.train(run, progress=seen.append)
        assert result.stopped == "finished" and result.steps == seen[-1].step == seen[-1].steps
        assert [one.step for one in seen] == sorted({one.step for one in seen})
        assert all(math.isfinite(one.loss) and one.seconds_left >= 0 for one in seen)
        assert 0 < result.step <= result.steps and math.isfinite(result.loss)
        assert (result.adapter is not None) or result.model

    def test_the_run_folder_says_how_to_repeat_it(self, trainer: Trainer, run: TrainRun) -> None:
        trainer.train(run)
        asked = json.loads((run.folder / RUN).read_text(encoding="utf-8"))
        assert asked["trainer"] == trainer.name
        assert asked["settings"]["seed"] == run.settings.seed
        assert asked["examples"]["train"] == [one.example.id for one in run.train]

    def test_a_finished_run_is_not_trained_again(self, trainer: Trainer, run: TrainRun) -> None:
        first = trainer.train(run)
        seen: list[TrainProgress] = []
        again = trainer.train(run, progress=seen.append)
        assert not seen and again.step == first.step and again.dev_loss == first.dev_loss

    def test_cancelling_stops_before_the_end(self, trainer: Trainer, run: TrainRun) -> None:
        result = trainer.train(run, cancelled=lambda: True)
        assert result.stopped == "cancelled" and result.adapter is None

    def test_no_examples_are_refused_with_a_remedy(self, trainer: Trainer, run: TrainRun) -> None:
        import dataclasses

        try:
            trainer.train(dataclasses.replace(run, train=()))
        except TrainingError as error:
            assert error.fix
        else:
            raise AssertionError("a run without examples was accepted")
