"""How long TRL takes from a file to a data set that is ready for training. The last line printed is the seconds."""

import sys
import time

import datasets
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer


def main(rows: str, tokenizer: str, folder: str, processes: str) -> None:
    datasets.disable_caching()
    datasets.disable_progress_bars()
    processing = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=len(processing), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    settings = SFTConfig(
        output_dir=folder,
        assistant_only_loss=True,
        max_length=2048,
        dataset_num_proc=int(processes),
        report_to="none",
        use_cpu=True,
        bf16=False,
    )
    model = LlamaForCausalLM(config)
    started = time.perf_counter()
    data = datasets.Dataset.from_json(rows, cache_dir=folder)
    trainer = SFTTrainer(model, settings, train_dataset=data, processing_class=processing)
    taken = time.perf_counter() - started
    assert len(trainer.train_dataset) > 0.9 * len(data)  # it leaves rows out that lose their whole answer
    print(taken)


if __name__ == "__main__":
    main(*sys.argv[1:])
