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
