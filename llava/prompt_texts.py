"""What the published conversation templates say before the first turn, to the character."""

from __future__ import annotations

_CHAT = "A chat between a curious {0} and an artificial intelligence assistant. "
_GIVES = "The assistant gives helpful, detailed, and polite answers to the {0}'s questions."
USER = (_CHAT + _GIVES).format("user")
HUMAN = (_CHAT + _GIVES).format("human")

_SEES = (
    " able to understand the visual content that the user provides, and assist the user with a variety of "
    "tasks using natural language."
)
LANGUAGE_AND_VISION = f"You are a helpful language and vision assistant. You are{_SEES}"
MMTAG = (
    f"{_CHAT.format('user')}The assistant is{_SEES}"
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)

LLAMA_2 = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
    "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information."
)
ANSWERS = "<|im_start|>system\nAnswer the questions."
MPT_CHAT = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives "
    "helpful and honest answers."
)

# The turn pair that `v0` begins with.
EXAMPLE_QUESTION = "What are the key differences between renewable and non-renewable energy sources?"
EXAMPLE_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short amount of "
    "time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy sources, on the other "
    "hand, are finite and will eventually be depleted, such as coal, oil, and natural gas. Here are some key "
    "differences between renewable and non-renewable energy sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable energy "
    "sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact than "
    "non-renewable sources, which can lead to air and water pollution, greenhouse gas emissions, and other "
    "negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they typically have "
    "lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more remote "
    "locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to different "
    "situations and needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
    "non-renewable sources are not, and their depletion can lead to economic and social instability.\n"
)
