r"""How a server splits a reply of the KAT format: the `response_template` of a tokenizer.

A declaration that transformers (`tokenizer.parse_response`, `get_response_parser`) reads, whole or
as it streams, and vLLM from 0.32 on with `--reasoning-parser hf` (the parser of 0.32.0 was run on
the replies of tests/export/test_response.py; its server never). Judge and thought go into
`thinking`, the answer into `content`, calls inside it into `tool_calls`; PARTS has the judge apart.

A tag counts only in its place, as in `katlab.template`: a part opens at the very beginning of the
turn (\A) or right behind the part before it, and the answer ends at the tag that ends the turn.

Deviations: (1) vLLM's server knows no field but these three and joins no regions, so the tags
between judge and thought stay in `thinking`; (2) this reads text where `template.parse` reads
tokens: a thought that spells out a whole "</think> <answer>" ends there; (3) text behind a tool
call replaces text before it, as no server can take it otherwise; (4) a call cut off is its text.

    tokenizer.response_template = response.SERVED
    tokenizer.parse_response(reply, prefix=prompt)        # {"role", "thinking", "content", ...}
"""

END = r"\s*(?:<\|im_end\|>|<\|endoftext\|>)"
ANSWER = r"\s*<answer>\n?"
THOUGHT = r"<think_on>\s*<think>\n?"
CONTENT = {  # what no other field takes; the alternatives are left out of it
    "close_pattern": rf"\A{ANSWER}|\s*</answer>\s*(?:<\|im_end\|>|<\|endoftext\|>|\Z)|{END}",
    "content": "text",
}
CALLS = {
    "open_pattern": r"\s*<tool_call>\s*(?=\{)",
    "close_pattern": rf"\s*</tool_call>|\s*</answer>{END}",
    "repeats": True,
    "content": "json",
    "content_args": {"allow_non_json": True},
    "transform": {"type": "function", "function": "{content}"},
}
START = {  # behind the prompt, with or without the trigger of a mode
    "defaults": {"role": "assistant"},
    "start_anchor": [
        "<|im_start|>assistant\n",
        "<|im_start|>assistant\n<think_on>\n",
        "<|im_start|>assistant\n<think_off>\n",
    ],
}

SERVED = START | {
    "fields": {
        "thinking": {
            "open_pattern": r"\A\s*(?:<judge>|<think>)\n?",
            "close_pattern": rf"\s*(?:</judge>\s*<think_o(?:n|ff)>|</think>){ANSWER}|{END}",
            "content": "text",
        },
        "tool_calls": CALLS,
        "content": CONTENT,
    },
}

PARTS = START | {
    "fields": {
        "judge": {
            "open_pattern": r"\A\s*<judge>\n?",
            "close_pattern": rf"\s*</judge>\s*(?:<think_o(?:n|ff)>{ANSWER}|(?={THOUGHT}))|{END}",
            "content": "text",
        },
        "thinking": {
            "open_pattern": rf"\A\s*<think>\n?|(?<=</judge>\s*){THOUGHT}",
            "close_pattern": rf"\s*</think>{ANSWER}|{END}",
            "content": "text",
        },
        "tool_calls": CALLS,
        "content": CONTENT,
    },
}
