"""Prompts and what diffusers' prompt_clean makes of them, and every HTML character reference.

    python tests/reference/clean.py runtime/tests/golden

Made with diffusers 0.42.1 (its three functions are short and quoted here, so that the script needs
no torch), ftfy 6.3.1 and Python 3.11 (Unicode 14). No prompt here is mojibake: that repair is left
out on purpose.
"""

import html
import html.entities
import json
import re
import sys

import ftfy

assert ftfy.__version__ == "6.3.1", ftfy.__version__


def basic_clean(text):
    return html.unescape(html.unescape(ftfy.fix_text(text))).strip()


def whitespace_clean(text):
    return re.sub(r"\s+", " ", text).strip()


def prompt_clean(text):
    return whitespace_clean(basic_clean(text))


PROMPTS = [
    "",
    " ",
    "\n\t \r\n",
    "A cat and a dog baking a cake together in a kitchen.",
    "  leading and trailing   spaces  ",
    "tabs\tand\nnew lines\r\nand\rold ones",
    "line\u2028and paragraph\u2029separators",
    "next line \x85 control",
    "no-break\u00a0space, thin\u2009space, narrow\u202fspace, ideographic\u3000space",
    "figure\u2007space ogham\u1680space math\u205fspace em\u2003quad",
    "file\x1cgroup\x1drecord\x1eunit\x1fseparators",
    "vertical\x0btab and form\x0cfeed",
    "zero\u200bwidth\u200bspace, word\u2060joiner, soft\u00adhyphen",
    "\ufeffbyte order mark",
    "null\x00 bell\x07 backspace\x08 delete\x7f",
    "annotation \ufff9anchor\ufffa separator\ufffb object\ufffc replacement\ufffd",
    "deprecated \u206a\u206b\u206c\u206d\u206e\u206f formatting",
    "right\u200eto\u200fleft \u202aembedding\u202c",
    "\u2018single\u2019 \u201cdouble\u201d \u201alow\u201b \u201elow\u201f",
    "it\u2019s the dog\u2019s bone, o\u02bcclock",
    "\u00abguillemets\u00bb \u2039single\u203a \u2032prime\u2033",
    "\ufb01sh, \ufb02y, a\ufb00air, o\ufb03ce, wa\ufb04e, \ufb05op, \ufb06op",
    "\u0132sselmeer \u0133s \u0149 \u01f1 \u01f2 \u01f3 \u01c4 \u01c5 \u01c6 \u01c7 \u01c8 \u01c9 \u01ca \u01cb \u01cc",
    "encyclop\u00e6dia \u0153uvre stra\u00dfe",
    "\uff2c\uff2f\uff35\uff24\u3000\uff2e\uff2f\uff29\uff33\uff25\uff33",
    "\uff35\uff80\uff70\uff9d \uff76\uff9e \uffe5\uffe1\uffe3\uffe9",
    "\uff08\uff11\uff0b\uff12\uff09\uff1d\uff13\uff01\uff1f\uff0c\uff1a",
    "\uffa1\uffa2\uffc2",
    "cafe\u0301 and cafe\u0301s, A\u030angstrom, \u212b, o\u0302\u0301",
    "\u1e9b\u0323 \u0071\u0307\u0323 \uac00\u1100\u1161",
    "\u2126 ohm \u212a kelvin",
    "x\u00b2 + y\u00b3 \u00bd cup, 10\u207b\u00b3, 1\u20442",
    "\u2026 ellipsis \u2013 en \u2014 em \u2212 minus \u2122 \u00ae \u00a9",
    "C1 \x91quotes\x92 and \x93double\x94 \x80 \x85 \x99 \x81\x8d",
    "Tom &amp; Jerry",
    "Tom &amp;amp; Jerry",
    "Tom &amp;amp;amp;amp;amp; Jerry",
    "a &lt;b&gt; c",
    "<b>bold &amp; bright</b> &eacute; &EACUTE;",
    "a < b &amp; c &lt; d",
    "first line &EACUTE;\nsecond < line &EACUTE;\nthird line &EACUTE;",
    "&quot;quoted&quot; &#39;single&#39; &apos;apos&apos;",
    "&nbsp;&nbsp;spaces&nbsp;&ensp;&emsp;&thinsp;",
    "&eacute;&Eacute;&EACUTE; P&EACUTE;REZ BUNDESSTRA&SZLIG;E &NTILDE; &nTILDE;",
    "&hellip; &mdash; &ndash; &bull; &copy; &reg; &trade;",
    "&#8217;s &#x2019;s &#X2019;s &#8220;x&#8221;",
    "&#128512; &#x1F600; &#x1f60",
    "&#0; &#1; &#11; &#12; &#13; &#27; &#128; &#129; &#159; &#xfdd0; &#xfffe; &#x10ffff; &#x110000; &#xd800;",
    "&#99999999999999999999; &#; &#x; &#xg; &#abc;",
    "&#59; &#38;amp; &#x26;lt;",
    "&amp &lt &notit; &notin; &ampere; &copy2024 &para &parallel; &amp=1",
    "this&not that &not; &unknown; &Unknown &a &;",
    "AT&T R&D Q&A rock&roll &",
    "&NotEqualTilde; &fjlig; &acE; &ThickSpace;x &bne;",
    "&FRAC12; &SUP2; &YEN; &EURO; &HEARTS; &AC; &ALEFSYM;",
    "&alphabetagammadeltaepsilonzeta; &CounterClockwiseContourIntegral;",
    "\x1b[36;44mI'm blue\x1b[0m and \x1b[1mbold\x1b[m, \x1b[not; \x1b[12;x \x1b]0;title\x07",
    "emoji \U0001f600\U0001f44d\U0001f3fd \U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f \U0001f1e9\U0001f1ea",
    "flag of Wales \U0001f3f4\U000e0067\U000e0062\U000e0077\U000e006c\U000e0073\U000e007f",
    "\u4e00\u53ea\u732b\u5728\u53a8\u623f\u91cc\u70e4\u86cb\u7cd5\u3002\u9633\u5149\u900f\u8fc7\u7a97\u6237\uff0c\u6e29\u6696\u3002",
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，"
    "丑陋的，残缺的，多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，"
    "杂乱的背景，三条腿，背景人很多，倒着走",
    "Bright tones, overexposed, static, blurred details, subtitles, style, works, paintings, images, static, overall gray, "
    "worst quality, low quality, JPEG compression residue, ugly, incomplete, extra fingers, poorly drawn hands, poorly drawn "
    "faces, deformed, disfigured, misshapen limbs, fused fingers, still picture, messy background, three legs, many people "
    "in the background, walking backwards",
    "\u732b\u304c\u8d70\u308b\u3001\u300c\u3053\u3093\u306b\u3061\u306f\u300d\u3002\u30ab\u3099 \uff76\uff9e",
    "\u0643\u0644\u0628 \u064a\u062c\u0631\u064a",
    "\u05db\u05dc\u05d1 \u05e8\u05e5",
    "\u0939\u093f\u0928\u094d\u0926\u0940 \u0915\u094d\u0937\u093f",
    "\u0e41\u0e21\u0e27\u0e27\u0e34\u0e48\u0e07",
    "\u041a\u043e\u0448\u043a\u0430 \u0438 \u0441\u043e\u0431\u0430\u043a\u0430",
    "\u0395\u03bb\u03bb\u03b7\u03bd\u03b9\u03ba\u03ac \u1f00\u03b3\u03ac\u03c0\u03b7",
    "Ti\u1ebfng Vi\u1ec7t, \u010de\u0161tina, Polski \u0142\u00f3d\u017a",
    "Caf\u00e9 in Z\u00fcrich, na\u00efve fa\u00e7ade, S\u00e3o Paulo, \u00c5ngstr\u00f6m",
    "\u00a1Hola! \u00bfQu\u00e9 tal, se\u00f1or?",
    "\U0001d4d5\U0001d4ea\U0001d4f7\U0001d4ec\U0001d4ff \U0001d538",
    "\u2460\u2461 \u2167 \u3392 \u33a5 \u00aa \u00ba",
    "back\\slash \\n \\u0041 100% $5 #tag @user ~ ^ ` | {x} [y]",
    "a;b;c &semi; &comma; &NewLine;x &Tab;y",
    "camera: \"wide shot\", lens 35mm f/1.8 -- slow motion (4k)",
    "<extra_id_0> special </s> <pad> tokens",
    "&lt;extra_id_1&gt; escaped special",
    "\u2063invisible\u2064 \u2061function \u180emongolian",
    "A\u0300\u0316 a\u0316\u0300 reordering of marks",
    "\ufe0e\ufe0f\u20e3 1\ufe0f\u20e3 keycap",
    "\U0001d173music\U0001d17a",
    "Hangul \u1112\u1161\u11ab\u1100\u1173\u11af jamo",
]

cases = [[prompt, prompt_clean(prompt)] for prompt in PROMPTS]
names = sorted({name.rstrip(";") for name in html.entities.html5})
named = {name: [html.unescape(f"&{name};"), html.unescape(f"&{name} x")] for name in names}
# Numbers that don't stand for their character, as [first, last, what each becomes].
numbers = []
for n in range(0x110010):
    text = html.unescape(f"&#{n};")
    if n < 0x110000 and text == chr(n):
        continue
    if numbers and numbers[-1][1] == n - 1 and numbers[-1][2] == text:
        numbers[-1][1] = n
    else:
        numbers.append([n, n, text])

with open(f"{sys.argv[1]}/clean.json", "w") as f:
    json.dump([[prompt, prompt_clean(prompt)] for prompt in PROMPTS], f, indent=0)
    f.write("\n")
with open(f"{sys.argv[1]}/html.json", "w") as f:
    json.dump(dict(named=named, numbers=numbers), f, separators=(",", ":"))
    f.write("\n")
