"""How strong each adversary of AT-GRPO is: the expected reward of new samples at the images that it chooses.

    safemed-eval train sft --model builtin:sft --template think --data phantom:split=train,images=3000,seed=9 \
        --batch-size 32 --steps 90 --learning-rate 3e-4 --out think
    python benchmarks/adversaries.py think
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from typing import get_args

import torch
from _common import machine

from safemed_eval import data, models
from safemed_eval.train import Groups, Recipe, Threats
from safemed_eval.train._rows import Rows, to_canvas
from safemed_eval.train.fit import policy_of
from safemed_eval.train.inner.adversary import Adversary
from safemed_eval.train.recipe import Aim
from safemed_eval.train.rewards.called import earned, reward_functions

QUESTIONS, STEPS = 24, 5
GROUPS = Groups(size=8, max_new_tokens=24, kept=0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the policy: a checkpoint that was trained here")
    options = parser.parse_args()
    models.quiet_transformers()
    print(machine())
    chosen = data.load("phantom:split=validation,images=64")
    items = chosen.items[:: len(chosen.items) // QUESTIONS][:QUESTIONS]
    _, waist = models.load_to_train(models.resolve(options.model), device="cpu", dtype="float32")
    vlm = waist.scorer
    recipe = Recipe(method="at-grpo", threats=Threats(), groups=GROUPS, batch_size=64, learning_rate=1e-5)
    functions, weights = reward_functions(GROUPS, vlm)
    policy = policy_of(recipe, vlm, earned(functions, weights, vlm), sum(weights))
    assert policy is not None
    rows = [Rows(items=items, canvas=chosen.canvas, template=vlm.template).row(item) for item in items]
    clean = torch.stack([to_canvas(row["image"]) for row in rows])
    rolled = policy.rollouts(clean, rows, "clean")
    right = [Counter(one.tokens for one in group if one.reward == 1) for group in rolled]

    def expected(canvas: torch.Tensor) -> float:
        return sum(one.reward for group in policy.rollouts(canvas, rows, "judge") for one in group) / len(rows) / 8

    print(f"{vlm.turn.told(rolled[0][0].tokens)!r}: clean {expected(clean):.3f}")
    for grey in (2, 4):
        for aim in get_args(Aim):
            threats = Threats(eps=grey / 255, steps=STEPS, share=1.0, warm_up=0.0, aim=aim)
            adversary = Adversary(model=waist, threats=threats, policy=policy, at_once=64)
            started = time.process_time()
            found = adversary.perturb(rows, right=right if aim == "kl" else None).rows
            spent = time.process_time() - started
            reward = expected(torch.stack([to_canvas(row["image"]) for row in found]))
            print(f"{grey}/255, {aim}: {reward:.3f} ({spent:.1f} s)", flush=True)


if __name__ == "__main__":
    main()
