"""Run folders as `tunesmith run` leaves them, made by code: realistic, of any size, and hostile on request."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CLUSTERS = {
    "closed-book questions": ("name_the_capital", "who_founded_it", "year_of_the_event"),
    "reading comprehension": ("answer_from_story", "find_the_owner"),
    "extraction": ("list_the_names", "copy_the_date", "prices_in_text"),
    "sentiment": ("like_or_dislike", "mood_of_the_letter"),
    "entailment": ("does_it_follow", "true_false_unknown"),
    "summary": ("one_sentence", "title_for_story"),
    "structure to text": ("table_to_sentence", "facts_to_story"),
    "arithmetic": ("shopping_bill", "days_between"),
    "sorting and counting": ("sort_words", "count_animals"),
    "rewriting": ("to_past_tense", "to_question"),
}
NEW_CLUSTERS = {"paraphrase": ("same_meaning", "say_it_otherwise")}
SAID = (
    (
        "Who owns the bakery in Brenwick?",
        "Mara Ilsen",
        "Mara Ilsen",
        "The bakery in Brenwick opened in spring. The bakery",
    ),
    (
        "Sort these words from A to Z: plum, kettle, ant, river.",
        "ant, kettle, plum, river",
        "ant, kettle, river, plum",
        "Sort these words from A to Z: plum, kettle,",
    ),
    (
        "A lamp costs 14 crowns and a rug costs 25 crowns. Tomas buys two lamps and one rug. What does he pay?",
        "Two lamps cost 2 × 14 = 28 crowns. With the rug that is 28 + 25 = 53 crowns. #### 53",
        "Two lamps cost 2 × 14 = 28 crowns. With the rug that is 28 + 25 = 52 crowns. #### 52",
        "and a chair costs 9 crowns. Tomas buys",
    ),
    (
        "Is this review pleased or displeased?\n\n“The ferry was late again, and cold.”",
        "displeased",
        "displeased",
        "“The ferry was",
    ),
    (
        "Write the sentence in the past tense: The hens sleep in the barn.",
        "The hens slept in the barn.",
        "The hens slept in the barn.",
        "The hens sleep in the barn. The hens",
    ),
)
NAMES = ("Tomas", "Edda", "Runa", "Jorin", "Pell", "Sanna", "Ivo", "Marit")
PLACES = ("Brenwick", "Oster Quay", "Hallow Ford", "Lund Mill", "Tarn Bridge")
RECIPE = """base: pocket
seed: 7
data:
  sources:
    - {pocket: 24000}
  mix: {strategy: temperature, temperature: 2.0, max_repeats: 3}
  replay: {pocket: 2000, share: 0.1}
  hold_out: {clusters: [paraphrase], phrasings: 0.2, items: 0.05}
train: {method: full, learning_rate: 1.0e-3, epochs: 2, tokens_per_step: 8192, max_length: 512}
evaluate: {items: 200, forgetting: {pocket: 200, max_rise: 0.03}}
"""


def fake_run(
    folder: Path,
    *,
    steps: int = 620,
    items: int = 600,
    gain: float = 0.72,
    few: int = len(CLUSTERS),
    extra_clusters: int = 0,
    seed: int = 0,
    text: str = "",
    samples: int = 3,
) -> Path:
    """Write a finished run. gain: how much better the tuned model is; few: use only the first clusters;
    text: put into every name and every text; samples: prompts that are answered while training, more than 3 of them
    at 100 measurements instead of 6."""
    rng = np.random.default_rng(seed)
    clusters = dict(list(CLUSTERS.items())[:few]) | {f"cluster {i}": (f"task_{i}",) for i in range(extra_clusters)}
    if text:
        clusters = {f"{name} {text}": tuple(f"{task} {text}" for task in tasks) for name, tasks in clusters.items()}
    _write(folder / "run.json", _run(steps, text))
    (folder / "recipe.yaml").write_text(RECIPE + f"# {text}\n" * bool(text), "utf-8", "replace")
    _ledger(folder / "ledger", clusters, rng, text.encode("utf-8", "replace").decode())  # as Parquet must have it
    _write(folder / "tokens/summary.json", _tokens(clusters, rng, text))
    _lines(folder / "metrics.jsonl", _metrics(steps, rng, list(clusters), text, samples))
    _write(folder / "evaluation/summary.json", _summary(clusters, gain, rng, text))
    _lines(folder / "evaluation/items.jsonl", _items(clusters, items, gain, rng, text))
    return folder


def _write(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def _lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _run(steps: int, text: str) -> dict[str, Any]:
    return {
        "name": f"quickstart {text}".strip(),
        "recipe": "quickstart",
        "tunesmith": "0.1.0",
        "started": "2026-11-21T09:14:03+00:00",
        "finished": "2026-11-21T09:17:31+00:00",
        "status": "finished",
        "base": f"pocket {text}".strip(),
        "method": "full",
        "parameters": 3_612_480,
        "trainable": 3_612_480,
        "steps": steps,
        "tokens": steps * 8192,
        "seconds": {"prepare": 9.4, "evaluate base": 21.7, "train": 148.2, "evaluate": 28.6},
        "machine": {
            "cpu": "AMD EPYC 7R13",
            "cores": 2,
            "device": "cpu",
            "python": "3.11.9",
            "torch": "2.13.0+cpu",
            "transformers": "5.23.0",
        },
        "command": f"tunesmith run quickstart --set seed=7 {text}".strip(),
        "seed": 7,
    }


def _ledger(folder: Path, clusters: dict[str, tuple[str, ...]], rng: np.random.Generator, text: str) -> None:
    def step(stage: str, read: int, reasons: dict[str, int], note: str = "", changed: int = 0) -> dict[str, Any]:
        dropped = sum(reasons.values())
        return {
            "stage": stage,
            "read": read,
            "kept": read - dropped,
            "dropped": dropped,
            "reasons": reasons,
            "changed": changed,
            "note": note,
        }

    _write(
        folder / "steps.json",
        [
            step(
                "read",
                24_312,
                {"no_response": 41, "bad_json": 7, f"unknown_role {text}".strip(): 3},
                f"Alpaca triples (24,312 rows) {text}",
            ),
            step(
                "split",
                24_261,
                {"held_out_phrasing_of_a_training_item": 1_204},
                "items 0.05, phrasings 0.2, clusters paraphrase",
            ),
            step("supervise", 18_540, {"too_long": 22, "special_token_in_content": 2}, changed=118),
            step("replay", 2_000, {}),
        ],
    )
    reasons = ["no_response"] * 41 + ["bad_json"] * 7 + ["too_long"] * 22
    stages = {"no_response": "read", "bad_json": "read", "too_long": "supervise"}
    drops = {
        "row": [f"pocket:{i * 37 + 5} {text}".strip() for i in range(len(reasons))],
        "stage": [stages[reason] for reason in reasons],
        "reason": reasons,
        "detail": [
            f"response is empty {text}" if reason == "no_response" else f"{512 + i} tokens {text}"
            for i, reason in enumerate(reasons)
        ],
    }
    pq.write_table(pa.table(drops), folder / "drops.parquet")
    places = (
        ["train"] * 18_516
        + ["new_items"] * 1_100
        + ["new_phrasings"] * 2_300
        + ["new_clusters"] * 1_117
        + ["replay"] * 2_000
    )
    pq.write_table(
        pa.table({"row": [f"pocket:{i}" for i in range(len(places))], "place": places}), folder / "places.parquet"
    )
    sizes = {name: int(size) for name, size in zip(clusters, rng.integers(150, 3600, len(clusters)), strict=True)}
    roots = {name: math.sqrt(size) for name, size in sizes.items()}
    total, asked = sum(sizes.values()), sum(roots.values())
    groups = {}
    for name, size in sizes.items():
        planned = roots[name] / asked
        drawn = min(round(planned * total), 2 * size)
        groups[name] = {
            "rows": size,
            "planned": planned,
            "drawn": drawn,
            "share": drawn / total,
            "repeats": drawn / size,
            "capped": drawn == 2 * size,
        }
    replay = {"planned": 0.1, "drawn": 0.0994, "tokens": 505_000}
    _write(
        folder / "mixture.json",
        {"by": "cluster", "strategy": "temperature", "temperature": 2.0, "groups": groups, "replay": replay},
    )


def _tokens(clusters: dict[str, tuple[str, ...]], rng: np.random.Generator, text: str) -> dict[str, Any]:
    rows = {name: int(rng.integers(400, 3000)) for name in clusters}
    counts = [120, 1_900, 4_800, 5_100, 3_300, 1_700, 900, 420, 180, 70, 30, 12]
    return {
        "clusters": {
            name: {"rows": n, "tokens": n * 96, "supervised": int(n * rng.integers(8, 50))} for name, n in rows.items()
        },
        "sequences": 20_516,
        "tokens": 2_540_000,
        "supervised": 611_000,
        "packing": {"efficiency": 0.9931, "rows": 4_995, "budget": 512},
        "lengths": {"edges": [i * 40 for i in range(13)], "counts": counts},
        "chat_template": "{% for message in messages %}<|"
        + text
        + "{{ message.role }}|>\n{{ message.content }}<|end|>\n{% endfor %}",
        "stop_tokens": ["<|end|>" + text],
    }


def _metrics(
    steps: int, rng: np.random.Generator, clusters: list[str], text: str, samples: int
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    every = steps // (6 if samples <= 3 else 100) or 1
    for step in range(1, steps + 1):
        share = step / steps
        rate = 1e-3 * min(step / (0.05 * steps), 0.1 + 0.45 * (1 + math.cos(math.pi * share)))
        loss = 0.62 + 2.9 * math.exp(-9 * share) + float(rng.normal(0, 0.05))
        rows.append(
            {
                "step": step,
                "epoch": 2 * share,
                "loss": loss,
                "learning_rate": rate,
                "grad_norm": 0.4 + 1.5 * math.exp(-12 * share) + abs(float(rng.normal(0, 0.1))),
                "tokens": step * 8192,
                "supervised_tokens": step * 2000,
                "tokens_per_second": 34_000 + float(rng.normal(0, 900)),
                "waiting": abs(float(rng.normal(0.02, 0.02))),
                "mfu": 0.61 + float(rng.normal(0, 0.015)),
                "memory": 2**30 * (1.9 - 0.4 * math.exp(-40 * share)),
                "seconds": step * 0.24,
            }
        )
        if step % every == 0:
            rows += _measurement(step, step // every, loss, clusters, text, samples)
    return rows


def _measurement(
    step: int, number: int, loss: float, clusters: list[str], text: str, samples: int
) -> list[dict[str, Any]]:
    """What is measured while training: losses by level and cluster, and answers; and a warning."""
    parts = {name: {"loss": loss + 0.03 * index, "tokens": 400} for index, name in enumerate(clusters)}
    levels = {"new_items": {"loss": loss + 0.11, "tokens": 4000, "clusters": parts}}
    levels["new_clusters"] = {"loss": loss + 0.6, "tokens": 900, "clusters": {f"paraphrase {text}".strip(): loss + 0.6}}
    answers = [
        {
            "row": f"pocket:{place} {text}".strip(),
            "level": "new_items",
            "cluster": f"{clusters[place % len(clusters)]}",
            "prompt": f"{said[0]} {text}".strip(),
            "expected": f"{said[1]} {text}".strip(),
            "answer": f"{said[3 - number % 2]} {text}",
            "metric": "exact_match",
            "score": float(number % 2),
        }
        for place, said in enumerate((SAID * samples)[:samples])
    ]
    warning = f"the device idles: 24% of the last 50 steps went into waiting for data. {text}".strip()
    return [
        {"step": step, "evaluation": levels},
        {"step": step, "samples": answers, "score": float(number % 2)},
        {"step": step, "warning": warning, "cause": "device idles"},
    ]


def _estimate(mean: float, n: int) -> dict[str, float]:
    width = 1.96 * math.sqrt(max(mean * (1 - mean), 0.002) / n)
    return {"mean": mean, "low": max(mean - width, 0.0), "high": min(mean + width, 1.0)}


def _row(n: int, base: float, tuned: float) -> dict[str, Any]:
    width = 1.96 * math.sqrt((tuned * (1 - tuned) + base * (1 - base) + 0.004) / n)
    difference = {"mean": tuned - base, "low": tuned - base - width, "high": tuned - base + width}
    both = {"chat": _estimate(base * 0.4, n), "plain": _estimate(base, n)}
    return {"n": n, "base": both, "tuned": _estimate(tuned, n), "difference": difference}


def _level(
    clusters: dict[str, tuple[str, ...]], n: int, base: float, gain: float, rng: np.random.Generator
) -> dict[str, Any]:
    def some(n: int) -> dict[str, Any]:
        low = float(np.clip(rng.normal(base, 0.02), 0, 1))
        return _row(n, low, float(np.clip(low + rng.normal(gain, 0.12), 0, 1)))

    each = max(n // len(clusters), 4)
    return {
        "overall": _row(n, base, min(max(base + gain, 0.0), 1.0)),
        "clusters": {name: some(each) for name in clusters},
        "tasks": {task: some(max(each // len(tasks), 3)) for tasks in clusters.values() for task in tasks},
    }


def _summary(clusters: dict[str, tuple[str, ...]], gain: float, rng: np.random.Generator, text: str) -> dict[str, Any]:
    new = {f"{name} {text}".strip(): tasks for name, tasks in NEW_CLUSTERS.items()}

    def losses(names: dict[str, Any], fall: float) -> dict[str, Any]:
        def row(n: int) -> dict[str, Any]:
            base, drop = 2.1 + float(rng.normal(0, 0.3)), fall + float(rng.normal(0, 0.1))
            return {
                "n": n,
                "tokens": n * 21,
                "base": base,
                "tuned": base - drop,
                "difference": {"mean": -drop, "low": -drop - 0.09, "high": -drop + 0.09},
            }

        return {"overall": row(1000), "clusters": {name: row(100) for name in names}}

    return {
        "generation": {
            "metric": "exact_match",
            "levels": {
                "new_items": _level(clusters, 400, 0.061, gain, rng),
                "new_phrasings": _level(clusters, 400, 0.055, gain - 0.06, rng),
                "new_clusters": _level(new, 60, 0.04, gain * 0.05, rng),
            },
        },
        "loss": {
            "new_items": losses(clusters, gain * 2),
            "new_phrasings": losses(clusters, gain * 1.9),
            "new_clusters": losses(new, 0.3),
        },
        "forgetting": {
            "documents": 200,
            "bytes": 181_400,
            "base": 0.912,
            "tuned": 0.9245,
            "rise": 0.0137,
            "low": 0.0112,
            "high": 0.0161,
            "limit": 0.03,
            "held": True,
        },
        "warnings": [f"new_clusters: the cluster paraphrase has 60 items. {text}".strip()],
    }


def _items(
    clusters: dict[str, tuple[str, ...]], n: int, gain: float, rng: np.random.Generator, text: str
) -> list[dict[str, Any]]:
    names = list(clusters)
    rows: list[dict[str, Any]] = []
    for i in range(n):
        level = ("new_items", "new_phrasings", "new_clusters")[i % 3]
        cluster = names[i % len(names)] if level != "new_clusters" else f"paraphrase {text}".strip()
        prompt, expected, wrong, rambling = (
            said.replace("Tomas", NAMES[i // 5 % len(NAMES)]).replace("Brenwick", PLACES[i // 7 % len(PLACES)])
            for said in SAID[int(rng.integers(len(SAID)))]
        )
        right = rng.random() < (gain + 0.06 if level != "new_clusters" else 0.1)
        base = bool(rng.random() < 0.06)
        rows.append(
            {
                "row": f"pocket:{i * 11 + 3} {text}".strip(),
                "item": f"i{i}",
                "level": level,
                "cluster": cluster,
                "task": clusters[cluster][0] if cluster in clusters else "same_meaning",
                "metric": "exact_match",
                "prompt": f"{prompt} {text}".strip(),
                "expected": f"{expected} {text}".strip(),
                "answers": {
                    "base_chat": f"{rambling} {text}".strip(),
                    "base_plain": f"{expected if base else rambling} {text}".strip(),
                    "tuned": f"{expected if right else wrong} {text}".strip(),
                },
                "scores": {"base_chat": 0.0, "base_plain": float(base), "tuned": float(right or wrong == expected)},
                "stopped": {"base_chat": False, "base_plain": bool(i % 3), "tuned": bool(i % 40)},
            }
        )
    return rows
