"""A run -> an adapter, by TRL and peft: every causal model that transformers knows, on a GPU where there is one.

On a GPU in bfloat16, with gradient checkpointing, and QLoRA where bitsandbytes is installed.
The order of examples, the loss and the schedule are the lean trainer's, so that their curves can be compared.
It does not know how text becomes tokens.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from graft.errors import TrainingError
from graft.training.checkpoint import load_model, load_tokenizer, open_checkpoint
from graft.training.encoding import require_fitting
from graft.training.machine import bfloat16_is_fast, gpu_memory_mb
from graft.training.protocol import Cancelled, Tell, TrainResult, TrainRun
from graft.training.schedule import plan, warmup_steps
from graft.training.silence import need_tune, quiet
from graft.training.states import ADAPTER, CHECKPOINTS, RunFolder, write_atomically

_RESULT = "result.json"
_SHORT_OF_MEMORY = ("out of memory", "allocate memory")
_SHORT_OF_DISK = ("PytorchStreamWriter", "enforce fail", "unexpected pos")
"""What torch says when a file cannot be written to its end."""


class GeneralTrainer:
    """TRL's SFTTrainer, fed with tokens and masks that were made and shown beforehand."""

    def __init__(
        self, *, device: str = "auto", checkpointing: bool | None = None, start: Path | None = None, shards: int = 1
    ) -> None:
        """
        Args:
            device: "cpu", "cuda", or "auto": a GPU where there is one.
            checkpointing: Compute activations twice rather than keep them; None: on a GPU only.
            start: PEFT folder of an adapter to begin from, in place of a fresh one.
            shards: Processes that call this together, in one torch.distributed group; see `sharded`.
        """
        self.device, self.checkpointing, self.start, self.shards = device, checkpointing, start, shards

    @property
    def name(self) -> str:
        return "general" if self.shards == 1 else "sharded"

    def refuse(self, run: TrainRun) -> str | None:
        need_tune()
        gpu = self.on_gpu()
        if run.settings.method != "lora":
            return "activated LoRA is the lean trainer's"
        if run.settings.quantize and not (gpu and _has_bitsandbytes()):
            return "QLoRA needs a GPU and bitsandbytes"
        if run.settings.precision == "bfloat16" and not gpu and not bfloat16_is_fast():
            return "this processor emulates bfloat16, far slower than float32"
        return None

    def train(
        self, run: TrainRun, *, progress: Tell = lambda seen: None, cancelled: Cancelled = lambda: False
    ) -> TrainResult:
        if reason := self.refuse(run):
            raise TrainingError(
                f"the general trainer cannot do this: {reason}",
                fix='method = "lora", precision = "auto", quantize = false in [tuning] of graft.toml',
            )
        folder = open_run(run, self.name)
        if (kept := kept_result(run)) is not None:
            return kept
        with quiet(), _named_failures(run):
            return self._train(run, folder, progress, cancelled)

    def _train(self, run: TrainRun, folder: RunFolder, progress: Tell, cancelled: Cancelled) -> TrainResult:
        from graft.training.trl_trainer import Watch, make_trainer, measure

        watch = Watch(run, folder, progress, cancelled)
        trainer = make_trainer(run, self._model(run), self._arguments(run), watch)
        leads = trainer.is_world_process_zero()
        last = next(_whole_states(run.folder / CHECKPOINTS), None)
        if leads:
            folder.cut_curve(0 if last is None else int(last.name.rpartition("-")[2]))
        began = time.monotonic()
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
        state = trainer.state
        if not watch.failure and not run.dev:  # what the last step did shows in no loss of its own
            loss, _ = measure(trainer.model, run.train[:1])
            if not math.isfinite(loss):
                watch.fail(state.global_step, f"loss {loss}", good=state.global_step - 1)
        if watch.failure:
            raise watch.failure
        if watch.cancelled:
            stopped, adapter, step = "cancelled", None, state.global_step
        else:
            stopped = "early" if state.global_step < state.max_steps else "finished"
            step = watch.best_step or state.global_step
            adapter = self._finish(run, trainer, step)
        result = TrainResult(
            adapter=adapter, step=step, steps=state.global_step, loss=watch.loss, dev_loss=watch.best_loss,
            dev_exact=watch.best_exact, tokens=watch.tokens, seconds=time.monotonic() - began, stopped=stopped,  # type: ignore[arg-type]
            resumed_from=0 if last is None else int(last.name.rpartition("-")[2]),
        )  # fmt: skip
        if adapter is not None and leads:
            saved = dataclasses.asdict(result) | {"adapter": None}
            write_atomically(run.folder / _RESULT, json.dumps(saved) + "\n")
        return result

    def _model(self, run: TrainRun) -> Any:
        import peft
        import torch

        checkpoint, settings, gpu = open_checkpoint(run.checkpoint), run.settings, self.on_gpu()
        dtype = torch.bfloat16 if self._bfloat16(run) else torch.float32
        options: dict[str, Any] = {"dtype": dtype}
        if settings.quantize:
            import transformers

            quantized: Any = transformers.BitsAndBytesConfig
            options["quantization_config"] = quantized(
                load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=dtype,
            )  # fmt: skip
        model = load_model(checkpoint, **options)
        model.config.use_cache = False
        if settings.quantize:
            prepare: Any = peft.prepare_model_for_kbit_training
            model = prepare(model, use_gradient_checkpointing=self._checkpointing())
        if self.start is not None:
            return peft.PeftModel.from_pretrained(model, str(self.start), is_trainable=True)
        torch.manual_seed(settings.seed)
        config = peft.LoraConfig(
            r=settings.rank, lora_alpha=settings.alpha,  # type: ignore[arg-type]  # a share such as 22.6 is as good
            lora_dropout=0.0, target_modules="all-linear",
            task_type="CAUSAL_LM",
        )  # fmt: skip
        made = peft.get_peft_model(model, config, autocast_adapter_dtype=gpu)
        if self._checkpointing():
            made.enable_input_require_grads()
        return made

    def _arguments(self, run: TrainRun) -> Any:
        from trl.trainer.sft_config import SFTConfig

        settings, schedule = run.settings, plan(run.settings, len(run.train))
        longest = max(len(one.tokens) for one in run.train)
        each = settings.batch_size // self.shards
        rows = max(1, min(each, settings.micro_tokens // longest))
        while each % rows:
            rows -= 1
        tokenizer = load_tokenizer(open_checkpoint(run.checkpoint))
        every = settings.evaluate_steps if run.dev else settings.checkpoint_steps
        made = SFTConfig(
            output_dir=str(run.folder / CHECKPOINTS),
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=each // rows,
            max_steps=schedule.steps,
            learning_rate=settings.learning_rate,
            lr_scheduler_type=settings.schedule,
            warmup_steps=warmup_steps(settings, schedule.steps),
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            bf16=self._bfloat16(run),
            gradient_checkpointing=self._checkpointing(),  # FSDP's own would rename the adapter's tensors
            use_cpu=not self.on_gpu(),
            seed=settings.seed,
            logging_steps=1,
            logging_nan_inf_filter=False,
            eval_strategy="steps" if run.dev else "no",
            eval_steps=every or schedule.steps,
            save_strategy="steps",
            save_steps=every or schedule.steps,
            save_total_limit=2,
            load_best_model_at_end=bool(run.dev),
            metric_for_best_model="eval_choice",
            greater_is_better=False,
            report_to=[],
            disable_tqdm=True,
            max_length=None,
            pad_token=tokenizer.pad_token,
            packing=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            dataloader_pin_memory=self.on_gpu(),
            fsdp=self.shards > 1,  # type: ignore[arg-type]  # the hint is of an older form
            fsdp_config={"version": 2} if self.shards > 1 else None,
        )
        if self.shards > 1 and not self.on_gpu():
            _let_processors_share(made)
        return made

    def _finish(self, run: TrainRun, trainer: Any, step: int) -> Path:
        """Save the state that was kept: TRL has loaded the best one. All processes take part, the first writes."""
        target, scratch = run.folder / ADAPTER, run.folder / f".{ADAPTER}"
        leads = trainer.is_world_process_zero()
        if leads:
            shutil.rmtree(scratch, ignore_errors=True)
        trainer.save_model(str(scratch))
        if not leads:
            return target
        for path in scratch.iterdir():
            if not path.name.startswith("adapter_"):
                path.unlink()
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        return target

    def on_gpu(self) -> bool:
        """Whether this trains on a GPU."""
        return self.device == "cuda" or (self.device == "auto" and gpu_memory_mb() is not None)

    def _checkpointing(self) -> bool:
        return self.on_gpu() if self.checkpointing is None else self.checkpointing

    def _bfloat16(self, run: TrainRun) -> bool:
        if run.settings.precision == "auto":
            import torch

            return self.on_gpu() and torch.cuda.is_bf16_supported()
        return run.settings.precision == "bfloat16"


def open_run(run: TrainRun, trainer: str) -> RunFolder:
    """The run's folder, once its settings and examples are known to be some that can be learnt.

    Raises:
        TrainingError: Nothing to learn from, an example over the context, or the folder holds another run.
    """
    if not run.train:
        raise TrainingError("there is no example to learn from", fix="graft dataset check FILE")
    require_fitting((*run.train, *run.dev), open_checkpoint(run.checkpoint).context_tokens)
    plan(run.settings, len(run.train))
    return RunFolder(run, trainer)


def kept_result(run: TrainRun) -> TrainResult | None:
    """What came of a run that is finished."""
    if not (run.folder / _RESULT).is_file():
        return None
    kept = json.loads((run.folder / _RESULT).read_text(encoding="utf-8"))
    return TrainResult(**(kept | {"adapter": run.folder / ADAPTER}))


def _let_processors_share(arguments: Any) -> None:
    """accelerate shards over accelerators only, though torch does over processors too: say that these are some."""
    from accelerate.state import PartialState  # type: ignore[import-untyped]
    from accelerate.utils import DistributedType  # type: ignore[import-untyped]

    assert arguments.device.type == "cpu"  # and the shared state is made by asking for it
    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU


def _whole_states(folder: Path) -> Iterator[Path]:
    """States that were written to their end, newest first; TRL writes trainer_state.json last."""
    found = [path for path in folder.glob("checkpoint-*") if path.name.rpartition("-")[2].isdigit()]
    for path in sorted(found, key=lambda path: -int(path.name.rpartition("-")[2])):
        try:
            json.loads((path / "trainer_state.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path, ignore_errors=True)
            continue
        yield path


def _has_bitsandbytes() -> bool:
    from importlib.util import find_spec

    return find_spec("bitsandbytes") is not None


@contextmanager
def _named_failures(run: TrainRun) -> Iterator[None]:
    """Turn what a GPU or a disk says into an error with a remedy."""
    from safetensors import SafetensorError

    try:
        yield
    except (MemoryError, RuntimeError, OSError, SafetensorError) as error:
        said = str(error)
        if isinstance(error, MemoryError) or any(sign in said for sign in _SHORT_OF_MEMORY):
            raise TrainingError(
                f"memory ran out; the last saved state stays valid ({said[:120]})", fix=_fitting(run)
            ) from error
        if isinstance(error, RuntimeError) and not any(sign in said for sign in _SHORT_OF_DISK):
            raise
        raise TrainingError(
            f"{run.folder} cannot be written ({said[:200]}); the last whole state stays valid",
            fix="free space on that disk and run the same command: it goes on from there",
        ) from error


def _fitting(run: TrainRun) -> str:
    """The setting that would fit: fewer rows at once, and where it is one already, shorter ones."""
    longest = max(len(one.tokens) for one in (*run.train, *run.dev))
    if run.settings.micro_tokens >= 2 * longest and run.settings.batch_size > 1:
        return f"micro_tokens = {max(longest, run.settings.micro_tokens // 2)} in [tuning] of graft.toml"
    return (
        f"context_tokens = {max(1, longest // 2)} in [tuning] of graft.toml, with --truncate shorten or drop; "
        "on a GPU quantize = true too"
    )
