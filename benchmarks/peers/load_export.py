"""What `tunesmith prepare --export` wrote, loaded with datasets and tokenised by TRL. FOLDER TOKENIZER"""

import json
import sys
import tempfile
from pathlib import Path

import datasets
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM
from trl import SFTConfig, SFTTrainer
from trl.trainer.utils import remove_none_values


def main(folder: str, tokenizer: str) -> None:
    datasets.disable_caching()
    datasets.disable_progress_bars()
    loaded = datasets.load_dataset(folder)
    print({split: len(rows) for split, rows in loaded.items()}, loaded["train"].features, sep="\n")
    marked = json.loads((Path(folder) / "dataset_info.json").read_text())
    for name, entry in marked.items():  # what LLaMA-Factory does with a file of its own
        rows = datasets.load_dataset("json", data_files=str(Path(folder) / entry["file_name"]), split="train")
        print(name, entry.get("formatting"), len(rows), rows.column_names)
        for row in rows if "messages" in rows.column_names else ():
            for message in row["messages"]:
                if message["role"] == "assistant" and "tool_calls" in message:
                    [call["function"]["name"] for call in message["tool_calls"]]
    processing = AutoTokenizer.from_pretrained(tokenizer)
    config = LlamaConfig(
        vocab_size=len(processing), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    with tempfile.TemporaryDirectory() as out:
        settings = SFTConfig(output_dir=out, max_length=2048, report_to="none", use_cpu=True, bf16=False, max_steps=2)
        rows = loaded["train"]
        features = datasets.Features({**rows.features, "messages": datasets.List(datasets.Json())})
        rows = rows.map(remove_none_values, features=features)  # as the card says
        assert all("tool_calls" not in message or message["tool_calls"] for row in rows for message in row["messages"])
        trainer = SFTTrainer(LlamaForCausalLM(config), settings, train_dataset=rows, processing_class=processing)
        tokens = sum(map(len, trainer.train_dataset["input_ids"]))
        trainer.train()
        print(f"TRL: {len(trainer.train_dataset):,} rows, {tokens:,} tokens, trained 2 steps")


if __name__ == "__main__":
    main(*sys.argv[1:])
