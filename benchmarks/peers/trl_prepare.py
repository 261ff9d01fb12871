"""How long TRL takes to prepare a data set for training. Prints seconds; the last line is what counts."""

import sys
import time

import datasets
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def main(rows: str, tokenizer: str, folder: str, processes: str) -> None:
    datasets.disable_caching()
    datasets.disable_progress_bars()
    data = datasets.Dataset.from_json(rows, cache_dir=folder)
    processing = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=len(processing), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    settings = SFTConfig(
        output_dir=folder,
        assistant_only_loss=True,
        max_length=None,
        dataset_num_proc=int(processes),
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    started = time.perf_counter()
    trainer = SFTTrainer(LlamaForCausalLM(config), settings, train_dataset=data, processing_class=processing)
    taken = time.perf_counter() - started
    assert len(trainer.train_dataset) == len(data)
    print(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
