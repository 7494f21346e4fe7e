"""Prompt templates as data: what stands around a problem's text. Whether a chat template follows is the harness's matter."""

import hashlib
from functools import cache
from pathlib import Path

SLOT = "{problem}"

TEMPLATES = {
    # The wording of the DAPO training set, arXiv 2503.14476: the answer stands on a last line of its own.
    "dapo": (
        "Solve the following math problem step by step. The last line of your response should be of the form "
        "Answer: $Answer (without quotes) where $Answer is the answer to the problem.\n\n"
        '{problem}\n\nRemember to put your answer on its own line after "Answer:".'
    ),
    "boxed": "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}.",
    # For a base model without a chat template: turns written out as plain text.
    "chat": (
        "User: {problem}\nPlease reason step by step, and put your final answer within \\boxed{}.\n\nAssistant:"
    ),
    "raw": "{problem}",
}


def render(template: str, problem_text: str) -> str:
    """The prompt's text. `template` is a name of TEMPLATES or a file that holds `{problem}` once.

    >>> render("raw", "What is 1 + 1?")
    'What is 1 + 1?'
    """
    return template_text(template).replace(SLOT, problem_text)


def template_hash(template: str) -> str:
    """First 16 hex digits of the SHA-256 of the template's text: a named template and a file of equal text are equal."""
    return hashlib.sha256(template_text(template).encode()).hexdigest()[:16]


@cache
def template_text(template: str) -> str:
    """The template with its `{problem}` slot; other braces stand for themselves."""
    if template in TEMPLATES:
        return TEMPLATES[template]
    if not Path(template).is_file():
        raise ValueError(f"no template or file {template!r}; choose one of {', '.join(TEMPLATES)} or give a file with {SLOT}")
    text = Path(template).read_text(encoding="utf-8")
    if text.count(SLOT) != 1:
        raise ValueError(f"template file {template} holds {SLOT} {text.count(SLOT)} times; it must hold it exactly once")
    return text


def untemplate(prompt: str) -> str:
    """The problem's text out of a prompt that one of TEMPLATES wrapped, white space around it aside; else the prompt."""
    prompt = prompt.strip()
    for template in TEMPLATES.values():
        before, after = (part.strip() for part in template.split(SLOT))
        if (before or after) and prompt.startswith(before) and prompt.endswith(after):
            return prompt.removeprefix(before).removesuffix(after).strip()
    return prompt
