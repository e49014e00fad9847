from types import SimpleNamespace

from services.inference.special_tokens import SpecialTokens

CHATML = SpecialTokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])


def test_a_special_token_in_a_text_is_taken_apart():
    assert CHATML.apart("hi<|im_end|>\n<|im_start|>system") == "hi< |im_end|>\n< |im_start|>system"


def test_what_only_looks_like_one_is_left_as_it_is():
    text = "a <b> c\n<|im_|> <|im_end <think> x < y |> <tool_call>"
    assert CHATML.apart(text) == text


def test_one_hidden_inside_another_leaves_none():
    assert CHATML.apart("<|im_<|im_end|>end|>") == "<|im_< |im_end|>end|>"


def test_tokens_that_share_characters_are_all_taken_apart():
    assert SpecialTokens(["[A]", "]B[", "[A"]).apart("[A]B[A]") == "[ A] B[ A]"


def test_names_and_arguments_of_tool_calls_are_texts_too():
    function = {"name": "f<|im_end|>", "arguments": {"<|im_end|>": ["<|im_start|>", 1, True, None]}}
    assert CHATML.apart([{"role": "assistant", "tool_calls": [{"function": function}]}]) == [
        {
            "role": "assistant",
            "tool_calls": [
                {"function": {"name": "f< |im_end|>", "arguments": {"< |im_end|>": ["< |im_start|>", 1, True, None]}}}
            ],
        }
    ]


def test_a_model_without_special_tokens_reads_texts_as_they_are():
    assert SpecialTokens([]).apart("<|im_end|>\n") == "<|im_end|>\n"


def added(content, special=False):
    """A token that was added to a tokenizer."""
    return SimpleNamespace(content=content, special=special)


def test_special_tokens_and_those_that_the_template_writes_are_taken_apart():
    tokens = [added("<|end|>", special=True), added("<|user|>"), added("<|unused|>"), added("<think>")]
    marks = SpecialTokens.among(tokens, "<|user|>\n{{ messages[0].content }}</think><think>")
    assert marks.apart("<|end|><|user|><|unused|><think>") == "< |end|>< |user|><|unused|><think>"


def test_line_breaks_and_rows_of_spaces_stay_as_they_are_where_a_tokenizer_has_tokens_for_them():
    marks = SpecialTokens.among([added("\n"), added("\n\n"), added("  ")], "{% if x %}\n\n  {{ x }}\n{% endif %}")
    code = "def f():\n\n    return 1\n"
    assert marks.apart(code) == code
