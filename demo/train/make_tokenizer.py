"""Train the demo checkpoint's SentencePiece unigram tokenizer on its captions.

Writes the two forms that real Wan checkpoints carry, spiece.model and tokenizer.json:

    python make_tokenizer.py --out tokenizer/
"""

import argparse
import io
import json
import os
import random

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from scenes import random_scene

parser = argparse.ArgumentParser()
parser.add_argument("--out", required=True)
out = parser.parse_args().out
os.makedirs(out, exist_ok=True)

rng, buffer = random.Random(0), io.BytesIO()
captions = [random_scene(rng).caption(rng) for _ in range(20000)]
sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(captions), model_writer=buffer, model_type="unigram", vocab_size=384,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, byte_fallback=True, hard_vocab_limit=False, minloglevel=2,
)
proto = sentencepiece_model_pb2.ModelProto.FromString(buffer.getvalue())
pieces = [(p.piece, p.score) for p in proto.pieces]

tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=True))
tokenizer.normalizer = normalizers.Sequence(
    [
        normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
        normalizers.Strip(),
        normalizers.Replace(Regex(" {2,}"), " "),
    ]
)
tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
tokenizer.post_processor = processors.TemplateProcessing(
    single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
)
tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
fast = PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>", model_max_length=512
)
fast.save_pretrained(out)
with open(os.path.join(out, "spiece.model"), "wb") as f:
    f.write(buffer.getvalue())
config = os.path.join(out, "tokenizer_config.json")
with open(config) as f:
    settings = json.load(f)
settings["tokenizer_class"] = "T5TokenizerFast"
with open(config, "w") as f:
    json.dump(settings, f, indent=2)
