"""The benchmarks' published rules, written down a second time and in another way than `llava.eval` has them.

Sources: the evaluation page and server code of the VQA challenge (normalisation, accuracy), the TextVQA and
ST-VQA challenges, POPE's repository, ScienceQA as LLaVA scores it, MME's evaluation kit, SEED-Bench.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from fractions import Fraction

# Pairs of the server's table, word by word: how it is mistyped, how it is meant.
PAIRS = """
    aint:ain't arent:aren't cant:can't couldve:could've couldnt:couldn't couldn'tve:couldn't've
    couldnt've:couldn't've didnt:didn't doesnt:doesn't dont:don't hadnt:hadn't hadnt've:hadn't've
    hadn'tve:hadn't've hasnt:hasn't havent:haven't hed:he'd hed've:he'd've he'dve:he'd've hes:he's
    howd:how'd howll:how'll hows:how's isnt:isn't itd:it'd itd've:it'd've it'dve:it'd've itll:it'll
    maam:ma'am mightnt:mightn't mightnt've:mightn't've mightn'tve:mightn't've mightve:might've
    mustnt:mustn't mustve:must've neednt:needn't notve:not've oclock:o'clock oughtnt:oughtn't
    ow's'at:'ow's'at 'ows'at:'ow's'at 'ow'sat:'ow's'at shant:shan't shed've:she'd've she'dve:she'd've
    shouldve:should've shouldnt:shouldn't shouldnt've:shouldn't've shouldn'tve:shouldn't've
    somebody'd:somebodyd somebodyd've:somebody'd've somebody'dve:somebody'd've somebodyll:somebody'll
    somebodys:somebody's someoned:someone'd someoned've:someone'd've someone'dve:someone'd've
    someonell:someone'll someones:someone's somethingd:something'd somethingd've:something'd've
    something'dve:something'd've somethingll:something'll thats:that's thered:there'd thered've:there'd've
    there'dve:there'd've therere:there're theres:there's theyd:they'd theyd've:they'd've they'dve:they'd've
    theyll:they'll theyre:they're theyve:they've twas:'twas wasnt:wasn't wed've:we'd've we'dve:we'd've
    weve:we've werent:weren't whatll:what'll whatre:what're whats:what's whatve:what've whens:when's
    whered:where'd wheres:where's whereve:where've whod:who'd whod've:who'd've who'dve:who'd've wholl:who'll
    whos:who's whove:who've whyll:why'll whyre:why're whys:why's wont:won't wouldve:would've
    wouldnt:wouldn't wouldnt've:wouldn't've wouldn'tve:wouldn't've yall:y'all yall'll:y'all'll
    y'allll:y'all'll yall'd've:y'all'd've y'alld've:y'all'd've y'all'dve:y'all'd've youd:you'd
    youd've:you'd've you'dve:you'd've youll:you'll youre:you're youve:you've
"""
CONTRACTIONS = dict(pair.split(":") for pair in PAIRS.split())
DIGITS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
MARKS = {";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", "!"}


def normalised(answer: str) -> str:
    """Character by character; the server's slips included."""
    text = "".join(character for character in answer.lower() if character not in ",?")
    text = text.replace("'s", " 's").strip()
    text = "".join(" " if character in "\n\t" else character for character in text).strip()
    beside_a_space = set()
    for left, right in zip(text, text[1:]):  # noqa: B905, RUF007
        if right == " ":
            beside_a_space.add(left)
        if left == " ":
            beside_a_space.add(right)
    spaced = ""
    for character in text:
        if character not in MARKS:
            spaced += character
        elif character not in beside_a_space:
            spaced += " "
    kept, budget = "", 32
    for index, character in enumerate(spaced):
        before_digit = index + 1 < len(spaced) and re.match(r"\d", spaced[index + 1])
        if character == "." and not before_digit and budget > 0:
            budget -= 1
        else:
            kept += character
    words = []
    for word in kept.split():
        number = DIGITS.get(word, word)
        if number in ("a", "an", "the"):
            continue
        words.append(CONTRACTIONS.get(number, number))
    return " ".join(words)


def soft_accuracy(answer: str, references: list[str]) -> Fraction:
    """Mean over the ten people of min(1, how many of the other nine said it / 3)."""
    said = [normalised(reference) for reference in references]
    wanted = normalised(answer)
    if wanted not in said:
        return Fraction(0)
    total = Fraction(0)
    for left_out in range(10):
        others = said[:left_out] + said[left_out + 1 :]
        total += min(Fraction(1), Fraction(Counter(others)[wanted], 3))
    return total / 10


def exact_match(answer: str, references: list[str]) -> bool:
    return any(normalised(answer) == normalised(reference) for reference in references)


def anls(answer: str, references: list[str]) -> float:
    """1 - normalised Levenshtein distance to the nearest reference; 0 where that is above one half."""

    @functools.cache
    def distance(left: str, right: str) -> int:
        if not left or not right:
            return len(left) + len(right)
        if left[0] == right[0]:
            return distance(left[1:], right[1:])
        return 1 + min(distance(left[1:], right), distance(left, right[1:]), distance(left[1:], right[1:]))

    best = 0.0
    for reference in references:
        left, right = answer.strip().lower(), reference.strip().lower()
        length = max(len(left), len(right))
        normal = Fraction(distance(left, right), length) if length else Fraction(0)
        best = max(best, 0.0 if normal > Fraction(1, 2) else float(1 - normal))
    return best


def pope(texts: list[str], labels: list[str]) -> dict[str, float]:
    """Confusion counts and ratios from answers and labels `yes`/`no`."""
    cells = Counter()
    for text, label in zip(texts, labels, strict=True):
        sentence = re.match(r"[^.]*", text).group().replace(",", "")
        denies = re.search(r"(^| )(No|no|not)( |$)", sentence) is not None
        cells["N" if denies else "P", "N" if label == "no" else "P"] += 1
    tp, fp, tn, fn = (cells[key] for key in (("P", "P"), ("P", "N"), ("N", "N"), ("N", "P")))
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return {
        "true_positive": tp,
        "false_positive": fp,
        "true_negative": tn,
        "false_negative": fn,
        "accuracy": (tp + tn) / len(texts) if texts else 0.0,
        "precision": precision,
        "recall": recall,
        "f1": 2 * tp / (2 * tp + fp + fn) if tp else 0.0,
        "yes_ratio": (tp + fp) / len(texts) if texts else 0.0,
    }


def science_letter(text: str, letters: str = "ABCDE") -> str | None:
    """`X`, `X. ...` or one `The answer is X` followed by any character but the end of a line."""
    direct = re.fullmatch(rf"([{letters}])(\. [\s\S]*)?", text)
    if direct:
        return direct.group(1)
    sentences = [found.group(1) for found in re.finditer(r"The answer is ([A-Z])[^\n]", text)]
    return sentences[0] if len(sentences) == 1 else None


def mme_task(rows: list[tuple[str, str, str]]) -> float:
    """100 (accuracy + accuracy+) of (picture, truth, answer)."""
    verdicts: dict[str, list[bool]] = {}
    for picture, truth, answer in rows:
        opening = answer[:4].casefold()
        said = "yes" if opening.find("yes") >= 0 else "no" if opening.find("no") >= 0 else None
        verdicts.setdefault(picture, []).append(said == truth.casefold())
    single = sum(sum(pair) for pair in verdicts.values())
    double = sum(1 for pair in verdicts.values() if pair == [True, True])
    return float(100 * (Fraction(single, len(rows)) + Fraction(double, len(verdicts))))
