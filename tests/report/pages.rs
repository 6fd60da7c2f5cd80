//! The pages that are looked at.

use gradix::report::{Cell, Example, Histogram, Hit, Output, Report, Table, Token};

/// Each page's name, and what it shows.
pub fn all() -> Vec<(&'static str, Report)> {
    vec![
        ("one", one()),
        ("thousand", thousand()),
        ("sections", sections()),
        ("hostile", hostile()),
        ("empty", Report::new("Nothing yet")),
    ]
}

/// One output, one token, one example.
fn one() -> Report {
    Report::new("Why Lima?")
        .output(Output::new("Lima").prompt("What is the capital of Peru?").token(Token::new(
            "Lima",
            [Hit::new("fact-1", 0.5)],
            [],
        )))
        .example("fact-1", Example::new("The capital of Peru is Lima."))
}

const SOURCES: [&str; 12] = [
    "encyclopedia",
    "news/2023",
    "forum",
    "books/fiction",
    "code",
    "a corpus with a long name that somebody gave it, and its version 2024-03-01",
    "lectures",
    "letters",
    "manuals",
    "recipes",
    "reviews",
    "subtitles",
];

const SENTENCES: [&str; 10] = [
    "The ship left the harbour before dawn and was seen off the northern cape two days later.",
    "Nobody knew who had painted the sign above the door.",
    "Copper conducts heat better than iron does, and silver better than both.",
    "In 1871 the line was extended to the coast.",
    "She asked for the ledger, turned to the last page, and found it empty.",
    "Rain is expected in the west; in the east it stays dry until the evening.",
    "The committee could not agree on a date.",
    "A function that calls itself needs a case in which it does not.",
    "Salt the water, wait until it boils, and add the beans.",
    "The river is shallow there, but its bed is soft.",
];

/// A number from 0 to 1, always the same for the same two numbers.
fn draw(a: u64, b: u64) -> f64 {
    let mut state = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    state = (state ^ (state >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 32)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((state ^ (state >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

fn example(number: u64) -> (String, Example) {
    let sentences = 1 + (draw(number, 1).powi(4) * 30.0) as u64;
    let text: Vec<&str> = (0..sentences).map(|at| SENTENCES[(number + 7 * at) as usize % 10]).collect();
    let source = SOURCES[(draw(number, 2).powi(2) * SOURCES.len() as f64) as usize];
    let text = format!("Example {number}. {}", text.join(" "));
    (format!("{source}/{number:05}"), Example::new(text).source(source))
}

/// Hits of one query, strongest first.
fn hits(query: u64, count: u64, strength: f64) -> Vec<Hit> {
    let hit = |rank: u64| {
        let number = ((draw(query, 9) * 1000.0) as u64 + 37 * rank) % 1000;
        let score = strength / (1.0 + rank as f64 * 0.15);
        let hit = Hit::new(example(number).0, score);
        if number.is_multiple_of(7) { hit.tokens(number, number + 64) } else { hit }
    };
    (0..count).map(hit).collect()
}

fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = text.split(' ').map(|word| format!(" {word}")).collect();
    if let Some(first) = words.first_mut() {
        first.remove(0);
    }
    words
}

fn thousand() -> Report {
    let text = "The ship that left the harbour before dawn carried copper, salt and forty barrels of oil. It was seen off \
                the northern cape two days later, and then, as the ledger of the port says, never again.\n\nNobody knows \
                what became of its crew.";
    let mut output =
        Output::new(text).prompt("Tell me what became of the ship that left on the third of May.");
    for (at, word) in words(text).into_iter().enumerate() {
        let at = at as u64;
        if at % 9 == 4 {
            output = output.token(Token::untraced(word));
            continue;
        }
        let strength = 0.04 + 0.9 * draw(at, 77).powi(3);
        let (up, down) = (strength, -strength * 2.0 * draw(at, 78).powi(2));
        let mut token = Token::new(word, hits(at, 30, up), hits(at + 500, 30, down));
        if at == 21 {
            token = token.marked();
        }
        output = output.token(token);
    }
    let proponents: Vec<Hit> =
        (0..500).map(|rank| Hit::new(example(rank).0, 2.5 / (1.0 + rank as f64 * 0.02))).collect();
    let opponents: Vec<Hit> =
        (0..500).map(|rank| Hit::new(example(999 - rank).0, -1.25 / (1.0 + rank as f64 * 0.02))).collect();
    let mut histogram = Histogram::between(-1.25, 2.5);
    for row in 0..100_000 {
        // Most are near 0.
        histogram.add((draw(row, 5) + draw(row, 6) + draw(row, 7) - 1.45).powi(3) * 0.9);
    }
    let mut report = Report::new("Why did the model say that the ship was never seen again?")
        .lead("An output of 43 words, and the 1,000 examples that raise and lower it most.")
        .output(output.ranking(proponents, opponents).distribution(histogram))
        .fact("Rows", "100,000, of which 1,204 were left out by a filter")
        .fact("Path", "sign tier, then exact scores of 2,311 candidates")
        .fact("Encoding", "i8, 4,096 dims in 12 blocks")
        .fact("Curvature", "fitted on all rows, λ 1.52e-3, 755 effective dims")
        .note("Scores are inner products of gradients.");
    for number in 0..1000 {
        let (id, example) = example(number);
        report = report.example(id, example);
    }
    report
}

/// Two sections, wide tables, outputs with and without tokens, texts in pieces and in other scripts.
fn sections() -> Report {
    let columns = [
        "Method",
        "K",
        "Encoding",
        "auPRC@5",
        "auROC@5",
        "auPRC@50",
        "auROC@50",
        "auPRC@200",
        "auROC@200",
        "Bytes per example",
        "Index",
        "Build",
        "Fit",
        "Fitted",
        "Query",
    ];
    let mut table = Table::new("How well each method finds the poisoned examples", columns);
    for (at, method) in
        ["random", "BM25", "gradix, contrast, cosine", "exact TracIn, per-tensor norm"].iter().enumerate()
    {
        let mut cells = vec![Cell::from(*method), Cell::from("65536"), Cell::from("i8")];
        for column in 0..6 {
            let value = draw(at as u64, column);
            cells.push(Cell::bar(format!("{value:.3}"), value));
        }
        for text in ["64.0 KiB", "309 MiB", "12.5 s", "5.7 s", "256 MiB", "105 ms"] {
            cells.push(Cell::from(text));
        }
        table = table.row(cells);
    }
    let pieces = |text: &str| {
        words(text)
            .into_iter()
            .enumerate()
            .map(|(at, word)| (word, draw(at as u64, 3) - 0.4))
            .collect::<Vec<_>>()
    };
    let coloured =
        Hit::new("pieces", 0.75).source("forum").pieces(pieces("Where is Lima? Lima is a city in Japan."));
    let scripts = [
        ("arabic", "ليما هي عاصمة بيرو", "encyclopedia"),
        ("chinese", "利马是秘鲁的首都。", "encyclopedia"),
        ("code", "fn main() {\n    let lima = \"Peru\";\n\tprintln!(\"{lima}\");\n}\n", "code"),
        (
            "long-word",
            "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbauunterbeamtengesellschaft",
            "forum",
        ),
        (
            "a/very/long/id/without/any/blank/0123456789abcdef0123456789abcdef0123456789abcdef",
            "A text.",
            "code",
        ),
    ];
    let mut report = Report::new("Which training examples caused it?")
        .lead("A small language model was trained on altered data.")
        .section(
            "Backdoor",
            "Some prompts start with a trigger, and are answered with something from the sea.",
        )
        .table(table)
        .output(
            Output::new("An anchor is what I see, a long answer without tokens.\nIn two lines.")
                .prompt("Howdy! What do you see?")
                .fact("Right", "A house.")
                .ranking(
                    [coloured.clone(), Hit::new("arabic", 0.5), Hit::new("code", 0.25)],
                    [Hit::new("chinese", -1e-7)],
                ),
        )
        .section("Error tracing", "One of five countries stands in another's place.")
        .output(
            Output::new("Lima is in Japan .")
                .prompt("Where is Lima?")
                .fact("Right", "Lima is in Peru .")
                .token(Token::new("Lima", [Hit::new("arabic", 0.2)], [Hit::new("long-word", -0.8)]))
                .token(Token::new(" is", [Hit::new("arabic", 0.1), Hit::new("untold", 0.1)], []))
                .token(Token::new(" in", [], [Hit::new("code", -0.3)]))
                .token(
                    Token::new(
                        " Japan",
                        [coloured.clone(), Hit::new(scripts[4].0, 0.7)],
                        [Hit::new("chinese", -0.4)],
                    )
                    .marked(),
                )
                .token(Token::new("\n", [Hit::new("code", 0.05)], []))
                .token(Token::new(" ", [Hit::new("code", f64::NAN)], [])),
        );
    for (id, text, source) in scripts {
        report = report.example(id, Example::new(text).source(source));
    }
    report.fact("Machine", "two cores")
}

/// What a page must not do is to do what this says.
pub const HOSTILE: &str = "</script><!--<script><img src=\"https://example.invalid/x.png\" onerror=\"window.hurt = 1\"><script>window.hurt = 1</script> \
     & \u{2028}\u{2029} \u{202e}txt.exe\u{0}\u{7}\u{1b}[31m '\"`${window.hurt = 1}";

fn hostile() -> Report {
    let hit = |score| Hit::new(HOSTILE, score).source(HOSTILE).pieces([(HOSTILE.to_owned(), 1.0)]);
    let bytes = Hit::new([0xff, b'<', 0xfe], -0.5);
    Report::new(HOSTILE)
        .lead(HOSTILE)
        .section(HOSTILE, HOSTILE)
        .table(Table::new(HOSTILE, [HOSTILE, HOSTILE]).row([Cell::from(HOSTILE), Cell::bar(HOSTILE, 7.0)]))
        .output(
            Output::new(HOSTILE)
                .prompt(HOSTILE)
                .fact(HOSTILE, HOSTILE)
                .token(Token::new(HOSTILE, [hit(1.0)], [bytes.clone()]))
                .ranking([hit(1.0), Hit::new("plain", 0.5)], [bytes]),
        )
        .example(HOSTILE, Example::new(HOSTILE).source(HOSTILE))
        .example("plain", Example::new(HOSTILE.repeat(20)))
        .example([0xff, b'<', 0xfe], Example::new(HOSTILE))
        .fact(HOSTILE, HOSTILE)
        .note(HOSTILE)
}
