"""Two unigram tokenizers, and the ids that Hugging Face's library gives texts with them.

    python tests/reference/tokenizer.py runtime/tests/golden

"umt5" is laid out as google/umt5-xxl's tokenizer.json: special ids first, extra ids last, unknown
characters become <unk>. "demo" has the layout of the demonstration checkpoint: bytes for unknown
characters, white space stripped. Writes tokenizers.json, and nmt_nfkc.charsmap, SentencePiece's
standard table. Made with sentencepiece 0.2.3 and tokenizers 0.23.3.
"""

import io
import json
import sys

import sentencepiece
import tokenizers
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

assert tokenizers.__version__.startswith("0.23."), tokenizers.__version__

CORPUS = """a red ball rolls slowly to the left over green grass . a blue cube falls onto the sandy ground . the
camera moves around a small yellow house at dawn . two white cats watch a bird through the window , soft light . a fast
train crosses the old stone bridge in heavy rain ! where does the river go ? an astronaut walks on the moon ; dust
rises . "hello" 'world' - ( ) : 0 1 2 3 4 5 6 7 8 9 1/2 1⁄2 . 一只 小猫 在 厨房 里 跑 。 静态 模糊 画面 最差质量 . été naïve ."""

TEXTS = [
    "",
    " ",
    "a red ball rolls slowly to the left",
    "A RED BALL, unknown capitals",
    "  two  spaces   and a trailing one ",
    "tab\tand\nnew line",
    "\u3000ideographic\u3000space, no-break\u00a0space, zero\u200bwidth",
    "1/2 cup and \u00bd cup and \uff11\uff0f\uff12 cup",
    "\ufb01ne \ufb02ow \u2122 \u2460 \u33a5",
    "cafe\u0301 \u00e9t\u00e9 nai\u0308ve",
    "一只小猫在厨房里跑。静态，模糊的画面，最差质量",
    "emoji \U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 end",
    "\U0001f600\U0001f601\U0001f602 fuse",
    "\u0e41\u0e21\u0e27 \u0643\u0644\u0628 \u05db\u05dc\u05d1",
    "<extra_id_1>",
    "a <extra_id_1> b<extra_id_0>c",
    "<extra_id_10> <extra_id_1>0 <extra_id_99>",
    "the </s> end <pad> of <unk> it <s>",
    "<0x41> is text",
    "\u2581already\u2581marked",
    "a\u0000b\u0001c",
    "ball " * 600,
    "x" * 700,
]


def train(**options):
    buffer = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS.replace("\n", " ").split(" . ") * 20), model_writer=buffer,
        model_type="unigram", vocab_size=420, hard_vocab_limit=False, byte_fallback=True,
        normalization_rule_name="nmt_nfkc", character_coverage=1.0, num_threads=1, minloglevel=2, **options,
    )
    return sentencepiece_model_pb2.ModelProto.FromString(buffer.getvalue())


def assemble(proto, pieces, unknown, byte_fallback, strip, special):
    tokenizer = Tokenizer(models.Unigram([piece[:2] for piece in pieces], unk_id=unknown, byte_fallback=byte_fallback))
    steps = [normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap)]
    steps += [normalizers.Strip()] if strip else []
    tokenizer.normalizer = normalizers.Sequence(steps + [normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="\u2581", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(special)
    tokenizer.enable_truncation(512)
    return dict(
        pieces=pieces, unknown=unknown, byte_fallback=byte_fallback, strip=strip,
        ids=[tokenizer.encode(text).ids for text in TEXTS],
    )


umt5 = train(pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>")
extra = [f"<extra_id_{i}>" for i in range(11, -1, -1)]
pieces = [(p.piece, p.score, p.type) for p in umt5.pieces] + [(name, 0.0, 3) for name in extra]
demo = train(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
charsmap = umt5.normalizer_spec.precompiled_charsmap
assert demo.normalizer_spec.precompiled_charsmap == charsmap
golden = dict(
    texts=TEXTS,
    umt5=assemble(umt5, pieces, 3, False, False, ["<pad>", "</s>", "<s>", "<unk>", *extra]),
    demo=assemble(
        demo, [(p.piece, p.score, p.type) for p in demo.pieces], 2, True, True, ["<pad>", "</s>", "<unk>"]
    ),
)
with open(f"{sys.argv[1]}/tokenizers.json", "w") as f:
    json.dump(golden, f, ensure_ascii=False, separators=(",", ":"))
    f.write("\n")
with open(f"{sys.argv[1]}/nmt_nfkc.charsmap", "wb") as f:
    f.write(charsmap)
