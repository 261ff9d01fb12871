"""How fast TRL trains on rows that are tokens already, and what it holds: one JSON line, `Measured` of ../train.py.

The only argument is a JSON object: model (folder), rows (JSON lines of input_ids and labels), out (folder), steps,
skip (steps of warm-up), length (of a packed row, or the longest sequence), rows_at_once, accumulate, packing, bf16,
lora (rank, 0: full), attention, cpu, liger, checkpointing.
"""

import json
import sys
import time
from pathlib import Path

import datasets
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer


class Clock(TrainerCallback):
    """The time, the real tokens so far and the loss at the end of each step."""

    def __init__(self) -> None:
        self.ticks: list[tuple[float, float, float]] = []

    def on_log(self, args, state, control, logs=None, **rest) -> None:
        if "loss" in logs:
            self.ticks.append((time.perf_counter(), logs["num_tokens"], logs["loss"]))


def main(given: str) -> None:
    job = json.loads(given)
    datasets.disable_caching()
    datasets.disable_progress_bars()
    dtype = torch.bfloat16 if job["bf16"] else torch.float32
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=dtype, attn_implementation=job["attention"])
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    rows = datasets.Dataset.from_json(job["rows"], cache_dir=job["out"])
    trainer = SFTTrainer(
        model, settings(job), train_dataset=rows, processing_class=tokenizer, peft_config=adapter(job["lora"])
    )
    clock = Clock()
    trainer.add_callback(clock)
    before = start_of_memory(job["cpu"])
    trainer.train()
    (start, tokens_before, _), (end, tokens, loss) = clock.ticks[job["skip"] - 1], clock.ticks[-1]
    peak = memory("VmHWM") if job["cpu"] else torch.cuda.max_memory_allocated()
    found = {"tokens": tokens - tokens_before, "seconds": end - start, "peak": peak, "before": before, "loss": loss}
    print(json.dumps({**found, "loss_first": clock.ticks[0][2]}))


def settings(job: dict) -> SFTConfig:
    return SFTConfig(
        output_dir=job["out"],
        max_steps=job["steps"],
        max_length=job["length"],
        packing=job["packing"],
        per_device_train_batch_size=job["rows_at_once"],
        gradient_accumulation_steps=job["accumulate"],
        gradient_checkpointing=job["checkpointing"],
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        bf16=job["bf16"],
        use_cpu=job["cpu"],
        use_liger_kernel=job["liger"],
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=0,
    )


def adapter(rank: int):
    if not rank:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def start_of_memory(cpu: bool) -> int:
    """What is held now, in bytes; the peak is counted from here on."""
    if not cpu:
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path("/proc/self/clear_refs").write_text("5")
    return memory("VmRSS")


def memory(name: str) -> int:
    """A line of this process's memory in bytes; VmHWM is the peak of VmRSS."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


if __name__ == "__main__":
    main(sys.argv[1])
