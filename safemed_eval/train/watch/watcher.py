"""The callback that evaluates a training, remembers its best checkpoint, ends it in time, and takes samples."""

from __future__ import annotations

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from safemed_eval.codec import Json
from safemed_eval.train._shards import whole_weights
from safemed_eval.train.watch.samples import Sampler, stride
from safemed_eval.train.watch.settings import Validation
from safemed_eval.train.watch.trainer import Watched
from safemed_eval.train.watch.validate import Accuracy, Validator, undisturbed


class Watcher(TrainerCallback):  # type: ignore[misc]
    """Evaluates and samples at the end of steps, without a trace in the training: its weights are bitwise the same.

    What was measured is in the trainer's own state, and so in every intermediate checkpoint: a training that goes on
    from one remembers its evaluations. A new best evaluation makes an intermediate checkpoint at once, which is not
    rotated away while it is the best.

    Args:
        trainer: the trainer that has this callback.
        validation, validator: the evaluations; None: none are made.
        sampler: takes samples at each evaluation, or without any at each intermediate checkpoint; None: none are taken.

    Attributes:
        stopped: True once patience has ended the training.
    """

    def __init__(
        self, trainer: Watched, validation: Validation | None, validator: Validator | None, sampler: Sampler | None
    ) -> None:
        self._trainer = trainer
        self._validation, self._validator, self._sampler = validation, validator, sampler
        self.stopped = False

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.best_global_step and (best := self._trainer.checkpoint(state.best_global_step)).is_dir():
            state.best_model_checkpoint = str(best)  # wherever the folder was when it was written
        if self._sampler and state.is_world_process_zero:
            self._sampler.begin(state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        step, last = state.global_step, state.global_step == state.max_steps
        every = self._validation.every if self._validation else args.save_steps
        if step > state.max_steps or (step % every and not last):  # a last checkpoint is followed by a step at rate 0
            return
        accelerator = self._trainer.accelerator
        with undisturbed(accelerator.device), accelerator.autocast(), whole_weights(self._trainer):
            if self._validation and self._validator:
                self._evaluate(self._validator, self._validation, state, control, last=last)
            due = last or self.stopped or step // every % stride(state.max_steps, every) == 0
            if self._sampler and due and state.is_world_process_zero:
                self._sampler.take(step)

    def _evaluate(
        self,
        validator: Validator,
        validation: Validation,
        state: TrainerState,
        control: TrainerControl,
        *,
        last: bool,
    ) -> None:
        share = self._trainer.accelerator
        accuracy = validator.measure(process=share.process_index, processes=share.num_processes)
        self._log(accuracy, state, control)
        if validation.best == "last":
            return
        value = accuracy.robust_accuracy if validation.best == "robust" else accuracy.clean_accuracy
        if state.best_metric is None or value > state.best_metric:
            state.best_metric, state.best_global_step = value, state.global_step
            control.should_save = True
        since = sum(line["step"] > state.best_global_step for line in evaluations(state))
        if validation.patience is not None and since >= validation.patience and not last:
            self.stopped = control.should_training_stop = True
            # A training that is killed now goes on from an earlier checkpoint, and ends here again.
            control.should_save = False

    def _log(self, accuracy: Accuracy, state: TrainerState, control: TrainerControl) -> None:
        """Pass an evaluation to all that log, without a line of the trainer's own window."""
        logs = accuracy.to_log()
        state.log_history.append({**logs, "step": state.global_step})
        due = control.should_log
        self._trainer.callback_handler.on_log(self._trainer.args, state, control, logs)
        control.should_log = due


def evaluations(state: TrainerState) -> list[Json]:
    """The evaluations so far, as the trainer's state holds them."""
    return [line for line in state.log_history if "eval_items" in line]


def outcome_of(state: TrainerState, validation: Validation, *, stopped: bool) -> Json:
    """Describe which step's weights are saved, by which evaluation, for the checkpoint's note."""
    every = evaluations(state)
    step = state.best_global_step if validation.best != "last" else every[-1]["step"]
    (chosen,) = [line for line in every if line["step"] == step]
    return {
        "step": step,
        "clean_accuracy": chosen["eval_clean_accuracy"],
        "robust_accuracy": chosen["eval_robust_accuracy"],
        "items": chosen["eval_items"],
        "attack": validation.attack,
        "chosen_by": validation.best,
        "last_step": every[-1]["step"],
        "ended_by_patience": stopped,
    }
