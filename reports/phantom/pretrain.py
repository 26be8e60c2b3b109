"""Makes the base checkpoint that the phantom checkpoints are fine-tuned from: the stand-in for a pretrained VLM.

    python reports/phantom/pretrain.py text   --out runs/text
    python reports/phantom/pretrain.py vision --out runs/vision
    python reports/phantom/pretrain.py robust --out runs/robust --vision runs/vision
    python reports/phantom/pretrain.py join   --out runs/base --text runs/text --vision runs/vision

Fine-tuning on questions about images alone does not teach a network of two million parameters to bind option letters to
options: its loss falls to that of guessing and stays. Large VLMs come with a language model that can, and with an
image encoder that has words for what it sees. `text` makes the first: repeated sequences, then look-ups, then
questions whose image tokens hold the words of the answer. `vision` makes the second: each image token learns to be
the word of one attribute. Both work on the same frozen word embeddings, so that they fit together; they can run at
the same time. `robust` goes on from `vision`, on attacked images.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.utils import logging

from safemed_eval.data.sources import phantom
from safemed_eval.models import tiny
from safemed_eval.models.checkpoints.load import patches_as_products
from safemed_eval.models.checkpoints.prompts import TEMPLATES, render
from safemed_eval.train._rows import completion

WORDS = sorted(
    {word for names in (phantom.ANATOMIES, phantom.FINDINGS) for kind in names.values() for word in kind}
    | {*phantom.MODALITIES, *phantom.GRADES, *phantom.PLACES, *phantom.COUNTS}
)
PHRASES = [
    *WORDS,
    *(text for texts in phantom.WORDINGS.values() for text in texts),
    *(template.user.splitlines()[-1] for template in TEMPLATES.values()),
]
IMAGE_TOKENS = 16
BATCH = 64
TEXT_WARM_UP, TEXT_STEPS = 300, 2600
VISION_STEPS, VISION_IMAGES = 4000, 20480
ROBUST_STEPS, ROBUST_EPS = 2000, 8 / 255


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("text", "vision", "robust", "join"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--text", type=Path, help="checkpoint of the text stage, for join")
    parser.add_argument("--vision", type=Path, help="checkpoint of the vision stage, for robust and join")
    options = parser.parse_args()
    logging.disable_progress_bar()
    if options.stage == "join":
        join(options.text, options.vision, options.out)
        return
    model, processor = fresh(options.out)
    patches_as_products(model)
    started = time.perf_counter()
    if options.stage == "text":
        text(model, processor)
    elif options.stage == "vision":
        vision(model, processor)
    else:
        start = AutoModelForImageTextToText.from_pretrained(options.vision, dtype=torch.float32)
        model.model.visual.load_state_dict(start.model.visual.state_dict())
        vision(model, processor, eps=ROBUST_EPS)
    model.save_pretrained(options.out)
    print(f"{options.stage}: {time.perf_counter() - started:.0f} s")


def fresh(folder: Path) -> tuple[Any, Any]:
    """An untrained model, initialised for its small width; equal in both stages."""
    tiny.build(tiny.SMALL_QWEN2_VL, folder, phrases=PHRASES)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(0)
    layers = len(model.model.language_model.layers)
    for name, weight in model.named_parameters():
        if weight.ndim >= 2:
            torch.nn.init.normal_(weight, 0, weight[0].numel() ** -0.5)
        if name.endswith(("o_proj.weight", "down_proj.weight", "attn.proj.weight", "fc2.weight")):
            weight.data /= (2 * layers) ** 0.5
    torch.nn.init.normal_(model.lm_head.weight, 0, 0.02)
    torch.nn.init.normal_(model.get_input_embeddings().weight, 0, 1.0).requires_grad_(False)
    return model, AutoProcessor.from_pretrained(folder)


def attributes(spec: phantom.Phantom) -> list[list[str]]:
    """Per picture: modality, anatomy, finding, grade, and place or count; what there is none of is the finding."""
    rows = []
    for index in range(spec.images):
        case = phantom.case_of(spec, index)
        finding = phantom.FINDINGS[case.modality][case.finding]
        where = (phantom.COUNTS if case.counted else phantom.PLACES)[case.place]
        last = [phantom.GRADES[case.grade], where] if case.finding else [finding, finding]
        rows.append([case.modality, phantom.ANATOMIES[case.modality][case.anatomy], finding, *last])
    return rows


def mistaken(rows: list[list[str]], rng: np.random.Generator) -> list[list[str]]:
    """Per picture, what each attribute could be mistaken for: another word of its kind."""

    def other(words: Sequence[str], than: str) -> str:
        return str(rng.choice([word for word in words if word != than]))

    found = []
    for modality, anatomy, finding, grade, where in rows:
        last = phantom.PLACES if where in phantom.PLACES else phantom.COUNTS if where in phantom.COUNTS else None
        found.append(
            [
                other(phantom.MODALITIES, modality),
                other(phantom.ANATOMIES[modality], anatomy),
                other(phantom.FINDINGS[modality], finding),
                other(phantom.GRADES, grade),
                other(last or [*phantom.PLACES, *phantom.COUNTS], where),
            ]
        )
    return found


def image_words(rows: list[list[str]], tokenizer: Any) -> torch.Tensor:
    """(N, 16) token ids: image token i is the word of attribute i mod 5."""
    ids = torch.tensor([tokenizer.convert_tokens_to_ids(row) for row in rows])
    return ids[:, torch.arange(IMAGE_TOKENS) % ids.shape[1]]


# ---------------------------------------------------------------------------------------------------- language model


def text(model: Any, processor: Any) -> None:
    tokenizer, language, head = processor.tokenizer, model.model.language_model, model.lm_head
    embeddings = model.get_input_embeddings()
    rng, draw = np.random.default_rng(0), torch.Generator().manual_seed(0)
    spec = phantom.Phantom(split="train", images=16384, seed=1)
    asked = {template: Asked(processor, spec, template) for template in ("think", "instruct")}
    positions = asked["think"].positions(model)
    letters = torch.tensor(tokenizer.convert_tokens_to_ids(list("ABCD")))
    hidden_size = head.in_features
    match = torch.nn.Linear(hidden_size, 1)  # which option is the one in the image? Asked early in the network
    weights = [*language.parameters(), *head.parameters(), *match.parameters()]
    optimizer = torch.optim.AdamW(
        [w for w in weights if w.requires_grad], lr=3e-3, weight_decay=0.02, betas=(0.9, 0.98)
    )
    seen: dict[str, list[float]] = {}
    for step in range(TEXT_STEPS):
        late = max(0.0, (step - TEXT_WARM_UP) / (TEXT_STEPS - TEXT_WARM_UP))
        set_rate(optimizer, 3e-3 * min(1, (step + 1) / 50) * max(0.03, 0.5 * (1 + math.cos(math.pi * late))))
        shares = [0, 0.1, 0.5 - 0.4 * late, 0.4 + 0.4 * late] if step >= TEXT_WARM_UP else [0.5, 0.5, 0, 0]
        kind = str(rng.choice(["repeat", "look up", "think", "instruct"], p=shares))
        extra = torch.zeros(())
        if kind in asked:
            ids, labels, words, others, options, gold = asked[kind].batch(rng)
            embedded = embeddings(ids)
            blur = 0.5 * late * torch.rand(*words.shape, 1, generator=draw)
            shown = torch.lerp(embeddings(words), embeddings(others), blur)
            shown = shown * (1 - 0.5 * late * torch.rand(*words.shape, 1, generator=draw))
            level = 0.7 * late * torch.rand(len(ids), 1, 1, generator=draw)
            embedded[:, asked[kind].image] = shown + level * torch.randn(shown.shape, generator=draw)
            place = positions[:, :, : ids.shape[1]].expand(-1, len(ids), -1)
            states = language(inputs_embeds=embedded, position_ids=place, use_cache=False, output_hidden_states=True)
            hidden, middle = states.last_hidden_state, F.layer_norm(states.hidden_states[2], (hidden_size,))
            matches = match(middle[torch.arange(len(ids))[:, None], options.clamp_min(0)]).squeeze(2)
            extra = F.cross_entropy(matches.masked_fill(options < 0, -torch.inf), gold)
        else:
            ids, labels = (repeated if kind == "repeat" else looked_up)(tokenizer, rng)
            hidden = language(input_ids=ids, use_cache=False).last_hidden_state
        labels = labels[:, 1:]
        chosen = labels != -100
        logits, gold = head(hidden[:, :-1][chosen]), labels[chosen]
        losses = F.cross_entropy(logits, gold, reduction="none")
        letter = torch.isin(gold, letters) if kind != "repeat" else torch.ones_like(gold, dtype=torch.bool)
        advance(optimizer, losses.mean() + losses[letter].mean() + extra)
        seen.setdefault(kind, []).append(float((logits.argmax(1) == gold)[letter].float().mean()))
        if (step + 1) % 50 == 0:
            print(step + 1, {name: round(float(np.mean(values[-20:])), 3) for name, values in seen.items()}, flush=True)


class Asked:
    """Questions of phantom as tokens, with their answers."""

    def __init__(self, processor: Any, spec: phantom.Phantom, template: str) -> None:
        self.tokenizer = processor.tokenizer
        rows = attributes(spec)
        self.words = image_words(rows, self.tokenizer)
        self.others = image_words(mistaken(rows, np.random.default_rng(1)), self.tokenizer)
        items = phantom.make(f"split={spec.split},images={spec.images},seed={spec.seed}").items
        self.pictures = [int(Path(item.image).stem) for item in items]
        self.gold = torch.tensor([item.label for item in items])
        self.options = torch.full((len(items), 4), -1)
        pad, bracket = self.tokenizer.convert_tokens_to_ids(["<|image_pad|>", ")"])
        self.rows = []
        for i, item in enumerate(items):
            prompt = render(processor, TEMPLATES[template].wording(item.question))
            ids = self.tokenizer(prompt)["input_ids"]
            at = ids.index(pad)
            ids[at : at + 1] = [pad] * IMAGE_TOKENS
            places = [place + 1 for place, token in enumerate(ids) if token == bracket]
            self.options[i, : len(places)] = torch.tensor(places)
            self.rows.append((ids, self.tokenizer(f"{completion(item, TEMPLATES[template])}<|im_end|>")["input_ids"]))
        self.image = slice(at, at + IMAGE_TOKENS)

    def positions(self, model: Any) -> torch.Tensor:
        """(3, 1, L) rotary positions of the longest row; those of a shorter one are their beginning."""
        ids = torch.tensor([max((a + b for a, b in self.rows), key=len)])
        kinds = (ids == self.tokenizer.convert_tokens_to_ids("<|image_pad|>")).int()
        grid = {"image_grid_thw": torch.tensor([[1, 8, 8]]), "mm_token_type_ids": kinds}
        found: torch.Tensor = model._prepare_position_ids_for_generation(ids, {"input_ids": ids, **grid})
        return found

    def batch(self, rng: np.random.Generator) -> tuple[torch.Tensor, ...]:
        """Tokens and labels (B, L), image words and what they could be mistaken for (B, 16), places of the options

        (B, 4) or -1, and gold options (B,).
        """
        chosen = rng.integers(0, len(self.rows), BATCH)
        rows = [self.rows[i] for i in chosen]
        ids, labels = padded([(a + b, [-100] * len(a) + b) for a, b in rows])
        shown = [self.pictures[i] for i in chosen]
        return ids, labels, self.words[shown], self.others[shown], self.options[chosen], self.gold[chosen]


def repeated(tokenizer: Any, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """A few random tokens over and over: what follows is known from the second round on."""
    rows = []
    for _ in range(BATCH):
        round_ = rng.permutation(np.arange(10, len(tokenizer)))[: rng.integers(5, 16)].tolist()
        row = (round_ * 8)[:40]
        rows.append((row, [-100] * (len(round_) + 1) + row[len(round_) + 1 :]))
    return padded(rows)


def looked_up(tokenizer: Any, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Options with letters, then options again, each with the letter that it had."""
    rows = []
    before, after = tokenizer("<think>")["input_ids"], tokenizer("</think><answer>")["input_ids"]
    for _ in range(BATCH):
        words = [WORDS[i] for i in rng.permutation(len(WORDS))[:4]]
        row = tokenizer(" ".join(f"{letter}) {word}" for letter, word in zip("ABCD", words, strict=True)))["input_ids"]
        labels = [-100] * len(row)
        for pick in rng.integers(0, 4, 6).tolist():
            ask = [*before, *tokenizer(words[pick])["input_ids"], *after]
            letter = tokenizer("ABCD"[pick])["input_ids"]
            row, labels = row + ask + letter, labels + [-100] * len(ask) + letter
        rows.append((row, labels))
    return padded(rows)


def padded(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(row) for row, _ in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    labels = torch.full((len(rows), longest), -100)
    for i, (row, label) in enumerate(rows):
        ids[i, : len(row)], labels[i, : len(row)] = torch.tensor(row), torch.tensor(label)
    return ids, labels


# ------------------------------------------------------------------------------------------------------ image encoder


def vision(model: Any, processor: Any, *, eps: float = 0.0) -> None:
    """Each image token becomes the word of one attribute; with eps, on images that PGD attacks in the L-infinity ball.

    An attack aims at one attribute of each picture, as one question would; three rows of four are attacked, and eps
    grows from 0 over the first third.
    """
    visual, rng = model.model.visual, np.random.default_rng(0)
    names = processor.tokenizer.convert_tokens_to_ids(WORDS)
    table = model.get_input_embeddings().weight[names].clone()
    column = {name: i for i, name in enumerate(names)}
    steps, rate = (ROBUST_STEPS, 8e-4) if eps else (VISION_STEPS, 1.5e-3)

    def drawn(spec: phantom.Phantom) -> tuple[torch.Tensor, torch.Tensor]:
        made = phantom.make(f"split={spec.split},images={spec.images},seed={spec.seed}").items
        pictures = {item.image: item for item in made}.values()
        pixels = np.stack([item.drawn() for item in pictures])
        words = image_words(attributes(spec), processor.tokenizer)
        words.apply_(column.__getitem__)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2), words

    def read(canvas: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 3, 64, 64) in [0, 1] -> the image tokens (B, 16, hidden), and their scores as words (B, 16, words)."""
        inputs = processor.image_processor(list(canvas * 255), return_tensors="pt")
        found = visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        tokens = found.view(len(canvas), IMAGE_TOKENS, -1)
        return tokens, 20 * F.normalize(tokens, dim=-1) @ F.normalize(table, dim=-1).T

    def attacked(clean: torch.Tensor, gold: torch.Tensor, eps: float, pgd_steps: int) -> torch.Tensor:
        aims = torch.from_numpy(rng.integers(0, 5, (len(clean), 1))) == torch.arange(IMAGE_TOKENS) % 5
        x = (clean + eps * (2 * torch.from_numpy(rng.random(clean.shape, dtype=np.float32)) - 1)).clamp(0, 1)
        for _ in range(pgd_steps):
            x.requires_grad_()
            losses = F.cross_entropy(read(x)[1].flatten(0, 1), gold.flatten(), reduction="none").view_as(gold)
            (slope,) = torch.autograd.grad((losses * aims).sum(), x)
            x = (x.detach() + 2 / pgd_steps * eps * slope.sign()).clamp(clean - eps, clean + eps).clamp(0, 1)
        return x

    pixels, words = drawn(phantom.Phantom(split="train", images=VISION_IMAGES, seed=1))
    new_pixels, new_words = drawn(phantom.Phantom(split="validation", images=256))
    new = new_pixels.float() / 255
    optimizer = torch.optim.AdamW(visual.parameters(), lr=rate, weight_decay=0.05, betas=(0.9, 0.98))
    for step in range(steps):
        set_rate(optimizer, rate * min(1, (step + 1) / 60) * max(0.03, 0.5 * (1 + math.cos(math.pi * step / steps))))
        chosen = torch.from_numpy(rng.integers(0, len(pixels), BATCH))
        canvas, gold = pixels[chosen].float() / 255, words[chosen]
        if eps:
            now, few = eps * min(1.0, 3 * (step + 1) / steps), BATCH * 3 // 4
            canvas[:few] = attacked(canvas[:few], gold[:few], now, 2)
        tokens, scores = read(canvas)
        aligned = (tokens - table[gold]).square().mean()
        advance(optimizer, F.cross_entropy(scores.flatten(0, 1), gold.flatten()) + 0.1 * aligned)
        if (step + 1) % 100 == 0:
            for level in (0.0, eps / 2, eps) if eps else (0.0,):
                shown = attacked(new, new_words, level, 5) if level else new
                with torch.no_grad():
                    right = (read(shown)[1].argmax(-1) == new_words).float().mean(0)
                found = [round(float(right[i::5].mean()), 3) for i in range(5)]
                print(step + 1, f"eps {255 * level:.0f}/255 modality anatomy finding grade place: {found}", flush=True)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def advance(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([w for group in optimizer.param_groups for w in group["params"]], 1.0)
    optimizer.step()


def join(text_folder: Path, vision_folder: Path, out: Path) -> None:
    """The language model of one and the image encoder of the other."""
    model = AutoModelForImageTextToText.from_pretrained(text_folder, dtype=torch.float32)
    other = AutoModelForImageTextToText.from_pretrained(vision_folder, dtype=torch.float32)
    model.model.visual.load_state_dict(other.model.visual.state_dict())
    model.save_pretrained(out)
    AutoProcessor.from_pretrained(text_folder).save_pretrained(out)


if __name__ == "__main__":
    main()
